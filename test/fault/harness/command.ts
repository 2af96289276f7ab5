// What the commands of the harnesses share: flags, log lines, the long run or the hunt for mutants, and the exit code.
import type { Kind } from "./differences.ts"

const began = performance.now()
/** Writes a line to standard error, with the seconds since the command began. */
export const say = (line: string): void =>
  void process.stderr.write(`${((performance.now() - began) / 1000).toFixed(1).padStart(7)} s  ${line}\n`)

/** The whole number that a flag has; undefined if the flag was not given. */
export const whole = (name: string, text: string | undefined): number | undefined => {
  if (text === undefined) return undefined
  if (!/^\d+$/.test(text)) throw new Error(`--${name} is ${text}; use a whole number`)
  return Number(text)
}

/** What every harness's report has. */
export interface Outcome {
  readonly lost: number
  readonly doubled: number
  readonly disordered: number
  readonly wrong: number
  /** Why the run did not finish; undefined if it did. */
  readonly hang: string | undefined
  readonly examples: ReadonlyArray<string>
}
/** What a mutant can be found by: a kind of difference, or that something does not happen which should. */
export type Finding = Kind | "hang"

/** Prints a report: what is wrong to standard error, then the figures to standard output. Returns the exit code. */
const printReport = (report: Outcome, json: boolean): number => {
  const { disordered, doubled, examples, hang, lost, wrong } = report
  if (hang !== undefined) process.stderr.write(`${hang}\n`)
  for (const example of examples) process.stderr.write(`${example}\n`)
  const figures = { ...report, hang: hang !== undefined, examples: undefined }
  process.stdout.write(`${JSON.stringify(figures, undefined, json ? 0 : 2)}\n`)
  return hang !== undefined || lost + doubled + disordered + wrong > 0 ? 1 : 0
}

/** Whether a mutant's run found what it should: at least one of the findings. */
export const isCaught = (found: ReadonlyArray<Finding>, report: Outcome): boolean => {
  const { disordered: order, doubled, hang, lost, wrong } = report
  const counts = { lost, doubled, order, wrong, hang: hang === undefined ? 0 : 1 }
  return found.some((kind) => counts[kind] > 0)
}
/** A mutant's run. */
export interface Hunted {
  readonly caught: boolean
  readonly report: Outcome
}
/** Runs a harness against a mutant. */
export type Hunt<M> = (mutant: M, seed: number, say: (line: string) => void) => Promise<Hunted>

/** Hunts mutants whose names contain one of the texts in `only`, and prints what each was found by. Returns the exit code. */
const huntAll = async <M extends { readonly name: string }>(
  mutants: ReadonlyArray<M>,
  hunt: Hunt<M>,
  seed: number,
  { json, only = "" }: CommonValues
): Promise<number> => {
  const texts = only.split(",")
  const wanted = mutants.filter(({ name }) => texts.some((text) => name.includes(text)))
  const missed: Array<string> = []
  const figures: Record<string, string> = {}
  for (const mutant of wanted) {
    const { caught, report } = await hunt(mutant, seed, say)
    const { disordered, doubled, examples, hang, lost, wrong } = report
    const counts = { lost, doubled, disordered, wrong, hang: hang !== undefined }
    const by = hang?.split("\n")[0] ?? examples[0] ?? "nothing"
    figures[mutant.name] = `${caught ? "caught" : "MISSED"}: ${JSON.stringify(counts)} ${by}`
    say(`${mutant.name}: ${figures[mutant.name]}`)
    if (!caught) missed.push(mutant.name)
  }
  const all = { seed, mutants: wanted.length, missed, figures }
  process.stdout.write(`${JSON.stringify(all, undefined, json ? 0 : 2)}\n`)
  return missed.length > 0 ? 1 : 0
}

/** The flags that every harness has, for `parseArgs`. */
export const commonFlags = {
  seed: { type: "string" },
  json: { type: "boolean", default: false },
  mutants: { type: "boolean", default: false },
  only: { type: "string" }
} as const
interface CommonValues {
  readonly seed?: string | undefined
  readonly json: boolean
  readonly mutants: boolean
  readonly only?: string | undefined
}
/**
 * Runs a harness as its flags say: one long run, or with `--mutants` a run for each mutant. Without `--seed` the seed is random. Returns the exit
 * code: 1 if anything was lost, doubled, out of order or wrong, if the run did not finish, or if a mutant was missed.
 */
export const runHarness = async <M extends { readonly name: string }>(
  values: CommonValues,
  harness: {
    readonly long: (seed: number) => Promise<Outcome>
    readonly mutants: ReadonlyArray<M>
    readonly hunt: Hunt<M>
  }
): Promise<number> => {
  const seed = whole("seed", values.seed) ?? Math.floor(Math.random() * 2 ** 31)
  say(`seed ${seed}`)
  return values.mutants
    ? huntAll(harness.mutants, harness.hunt, seed, values)
    : printReport(await harness.long(seed), values.json)
}
