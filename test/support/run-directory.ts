// The names of what the test files of a run share in the directory for temporary files. They have the id of the process of the test runner.
import { tmpdir } from "node:os"
import { join } from "node:path"

/** The path of the PostgreSQL cluster that servers of a run are copied from. `runner` is the process id of the test runner. */
export const imagePath = (runner: number): string => join(tmpdir(), `millrace-test-image-${runner}`)
