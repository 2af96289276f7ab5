// Runs what a page or a document shows as people do: in a shell.
import { execFile } from "node:child_process"
import { join } from "node:path"
import * as Cli from "./cli.ts"

const root = join(import.meta.dirname, "../..")

/** A command of Millrace, as it is shown, as one that runs this repository's own code. */
export const ownCommand = (text: string): string =>
  text.replace("npx millrace", `${process.execPath} ${join(root, "bin/millrace.mjs")}`)
/** Runs a line of a shell. Resolves to what it prints, and rejects with what it says if it fails. */
export const shell = (line: string, environment: Readonly<Record<string, string>> = {}): Promise<string> =>
  new Promise((resolve, reject) =>
    execFile("sh", ["-c", line], { cwd: root, env: Cli.environmentOf(environment) }, (error, output, said) =>
      error === null ? resolve(output) : reject(new Error(`${line}: ${said}`))
    )
  )
