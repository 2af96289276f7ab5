// Removes the folder of a test, in which a server that is stopping may still write.
import { rmSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"

/** Removes a folder with all that is in it; tries for five seconds. */
export const removed = async (folder: string): Promise<void> => {
  for (let tries = 1; ; tries++) {
    try {
      return rmSync(folder, { recursive: true, force: true })
    } catch (error) {
      if (tries === 25) throw error
      await sleep(200)
    }
  }
}
