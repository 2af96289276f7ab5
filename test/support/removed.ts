// Removes the folder of a test, in which a server that is stopping may still write and delete.
import { existsSync, rmSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"

/** Removes a folder with all that is in it; tries for five seconds. */
export const removed = async (folder: string): Promise<void> => {
  for (let tries = 1; ; tries++) {
    try {
      rmSync(folder, { recursive: true, force: true })
      // Node stops without an error where a file is gone that it was about to delete
      if (!existsSync(folder)) return
    } catch (error) {
      if (tries === 25) throw error
    }
    if (tries === 25) throw new Error(`${folder} is still there`)
    await sleep(200)
  }
}
