// Removes what the test files of this run shared, and before a run what one with the same process id left.
import { rmSync } from "node:fs"
import { imagePath } from "./run-directory.ts"

const remove = (): void => {
  for (const path of [imagePath(process.pid), `${imagePath(process.pid)}.lock`])
    rmSync(path, { recursive: true, force: true })
}
/** Vitest's global set-up. */
export const setup = remove
/** Called by vitest when all files have ended. */
export const teardown = remove
