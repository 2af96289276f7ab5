// Pages whose commands a test runs: the blocks that are marked to run, each with the output that the page says, and the files that it has the reader write.
import { appendFileSync } from "node:fs"
import { join } from "node:path"

/** A command of a page, and what it prints; `isLater`: it may take a while until that is printed. */
export interface Step {
  readonly command: string
  readonly output: string
  readonly isLater: boolean
}
/** The blocks `sh run` and `sh run later` of a page, each with the `text` block that follows it. */
export const stepsOf = (page: string): ReadonlyArray<Step> =>
  [...page.matchAll(/^```sh run( later)?\n([\s\S]*?)^```\n\n^```text\n([\s\S]*?)^```$/gm)].map(
    ([, later, command = "", output = ""]) => ({ command, output, isLater: later !== undefined })
  )
/** Writes the files of a page: the blocks that are marked `file=NAME`. Several blocks of one file follow one another. */
export const writeFilesOf = (page: string, directory: string): void => {
  for (const [, name = "", text = ""] of page.matchAll(/^```\w+ file=(\S+)\n([\s\S]*?)^```$/gm))
    appendFileSync(join(directory, name), text)
}
/** What an output of a page matches, in which `…` stands for anything. */
export const patternOf = (text: string): RegExp =>
  new RegExp(
    text
      .trim()
      .split("…")
      .map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`))
      .join("[^]*")
  )
