// What the commands of the harnesses share: how they say where they are, read numbers, and end.

const began = performance.now()
/** A line to standard error, with the seconds since the command began. */
export const say = (line: string): void =>
  void process.stderr.write(`${((performance.now() - began) / 1000).toFixed(1).padStart(7)} s  ${line}\n`)

/** A flag's whole number; undefined where it was not given. */
export const whole = (name: string, text: string | undefined): number | undefined => {
  if (text === undefined) return undefined
  if (!/^\d+$/.test(text)) throw new Error(`--${name} ${text} is no whole number`)
  return Number(text)
}

/** What every harness's report has. */
export interface Outcome {
  readonly lost: number
  readonly doubled: number
  readonly disordered: number
  readonly wrong: number
  /** Why the run did not come to its end; undefined where it did. */
  readonly hang: string | undefined
  readonly examples: ReadonlyArray<string>
}
/** Whether anything was not as it should be. */
export const failed = ({ disordered, doubled, hang, lost, wrong }: Outcome): boolean =>
  hang !== undefined || lost + doubled + disordered + wrong > 0

/** Prints a report: what is wrong to standard error, then the figures. Returns the exit code. */
export const tell = (report: Outcome, json: boolean): number => {
  if (report.hang !== undefined) process.stderr.write(`${report.hang}\n`)
  for (const example of report.examples) process.stderr.write(`${example}\n`)
  const figures = { ...report, hang: report.hang !== undefined, examples: undefined }
  process.stdout.write(`${JSON.stringify(figures, undefined, json ? 0 : 2)}\n`)
  return failed(report) ? 1 : 0
}

/** A mutant's run. */
export interface Hunted {
  readonly caught: boolean
  readonly report: Outcome
}
/** Hunts mutants whose names hold a text, and prints by what each was caught. Returns the exit code. */
export const huntAll = async <M extends { readonly name: string }>(
  mutants: ReadonlyArray<M>,
  hunt: (mutant: M, seed: number, say: (line: string) => void) => Promise<Hunted>,
  { json, only = "", seed }: { readonly json: boolean; readonly only: string | undefined; readonly seed: number }
): Promise<number> => {
  const wanted = mutants.filter(({ name }) => name.includes(only))
  const missed: Array<string> = []
  const figures: Record<string, string> = {}
  for (const mutant of wanted) {
    const { caught, report } = await hunt(mutant, seed, say)
    const { disordered, doubled, hang, lost, wrong } = report
    const counts = { lost, doubled, disordered, wrong, hang: hang !== undefined }
    const by = hang?.split("\n")[0] ?? report.examples[0] ?? "nothing"
    figures[mutant.name] = `${caught ? "caught" : "MISSED"}: ${JSON.stringify(counts)} ${by}`
    say(`${mutant.name}: ${figures[mutant.name]}`)
    if (!caught) missed.push(mutant.name)
  }
  const told = { seed, mutants: wanted.length, missed, figures }
  process.stdout.write(`${JSON.stringify(told, undefined, json ? 0 : 2)}\n`)
  return missed.length > 0 ? 1 : 0
}
