// What `npm run bench -- all` runs, and the table that it makes of the results. Pure.

/** A benchmark of the suite. */
export interface SuiteEntry {
  readonly name: string
  /** Flags of a full run, and of one with `--small`, which takes seconds and only shows that the benchmark works. */
  readonly flags: ReadonlyArray<string>
  readonly small: ReadonlyArray<string>
  /** How many minutes a full run takes on two quiet cores, roughly. */
  readonly minutes: number
  /** What it needs besides Node: Java for brokers that it starts, Maven for the peer, the npm registry, or Chromium. */
  readonly needs?: "java" | "java, mvn" | "npm" | "Chromium"
  /** Which figures the table shows: those whose path has one of these as its last part, or is one of these. */
  readonly figures: ReadonlyArray<string>
}

const words = (text: string) => text.split(" ").filter((word) => word !== "")
const entry = (
  name: string,
  minutes: number,
  full: string,
  small: string,
  figures: string,
  needs?: SuiteEntry["needs"]
): SuiteEntry => ({
  name,
  flags: words(full),
  small: words(small),
  minutes,
  figures: words(figures),
  ...(needs !== undefined && { needs })
})

/** Of the first step, of the middle and of the last. */
const growthFigures = ["1", "5", "10"]
  .flatMap((step) =>
    words("eventsPerSecond microsPerEvent.node microsPerEvent.postgres rssMiB readMs.status readMs.countOfWindows").map(
      (name) => `steps.${step}.${name}`
    )
  )
  .join(" ")
/** All benchmarks, the ones without services first. */
export const suite: ReadonlyArray<SuiteEntry> = [
  entry("handling", 1, "", "--events 60000 --batch 500", "decode handle statement all peakMiB"),
  entry(
    "throughput",
    1,
    "--events 1000000",
    "--events 20000",
    "eventsPerSecond cpuMicrosPerEvent serverMicrosPerEvent peakMiB"
  ),
  entry("bulk", 1, "--events 500000", "--events 10000", "events_per_second"),
  entry("embedded-latency", 1, "--rate 500", "--rate 100 --seconds 3 --warmup 1", "p50 p99"),
  entry("gateway", 1, "--json", "--json --seconds 1", "eventsPerSecond p99Ms cpuMicrosAnEvent"),
  entry("streams", 1, "", "--clients 10 --rate 200 --seconds 2", "p50 p99"),
  entry("log", 2, "", "--records 10000", "recordsPerSecond p50Ms p99Ms bytesPerRecord"),
  entry("relay", 1, "", "--messages 20000 --seconds 2", "messagesPerSecond p50Ms p99Ms"),
  entry("fanout", 3, "", "--messages 10000 --seconds 2", "messagesPerSecond p50Ms p99Ms"),
  entry("aggregates", 5, "", "--seconds 0.5 --runs 1 --loads 10,1000", "ratio", "npm"),
  entry("diff", 2, "", "--rows 10000 --times 2", "diffMs.p50 frozenMs.p50 frozenMs.max rssMb"),
  entry("promote", 2, "", "--switches 3 --rate 200", "p50 p90 max"),
  entry(
    "rebuild",
    3,
    "",
    "--events 20000 --seconds 2",
    "eventsPerSecond nodeMicrosPerEvent serverMicrosPerEvent p50 p99"
  ),
  entry("growth", 12, "", "--events 60000 --step 20000", growthFigures),
  entry(
    "console",
    15,
    "",
    "--rate 50 --keys 1000 --rows 2000 --dead-letters 20 --seconds 3",
    "allMsPerSecond",
    "Chromium"
  ),
  entry("package", 3, "", "", "createMs installSeconds installedMB helpMs importMs firstDevReadyMs devReadyMs", "npm"),
  entry(
    "peer",
    15,
    "--events 1000000 --runs 3 --json",
    "--events 20000 --warmup 0 --json",
    "eventsPerSecond total peakMiB ratio cpuRatio",
    "java, mvn"
  ),
  entry(
    "latency",
    12,
    "--rate 2000 --runs 3 --json",
    "--rate 200 --seconds 3 --warmup 2 --json",
    "p50 p99 p99Ratio",
    "java, mvn"
  ),
  entry("recovery", 6, "--rate 2000 --runs 3 --json", "--rate 200 --json", "secondsToFirstNewRow", "java, mvn"),
  entry("relay-kafka", 2, "", "--messages 12000 --seconds 2", "messagesPerSecond p50Ms p99Ms", "java"),
  entry("kafka-log", 2, "", "--records 8000", "perSecond p50 p99", "java"),
  entry("pulsar", 4, "", "--messages 1000", "produced exclusive shared keyShared p50 p99", "java"),
  entry("relay-pulsar", 4, "", "--messages 2000 --seconds 2", "messagesPerSecond handledPerSecond p50Ms p99Ms", "java"),
  entry(
    "bridge",
    4,
    "--json",
    "--records 2000 --rate 200 --seconds 2 --json",
    "per_second cpu_us p50_ms p99_ms",
    "java"
  )
]

/** A figure and where it is in the output: `alone.p50`. */
export interface Figure {
  readonly path: string
  readonly value: number
}
/** The texts of an object, which say what its figures are of, such as a transport. */
const labelOf = (value: object) => Object.values(value).filter((one): one is string => typeof one === "string")
/** All numbers of an output, in their order. Elements of a list are named by their texts, or by their number. */
export const figuresOf = (output: unknown, path: ReadonlyArray<string> = []): ReadonlyArray<Figure> => {
  if (typeof output === "number") return [{ path: path.join("."), value: output }]
  if (typeof output !== "object" || output === null) return []
  if (Array.isArray(output))
    return output.flatMap((one: unknown, i) => {
      const label = typeof one === "object" && one !== null ? labelOf(one).join(" ") : ""
      return figuresOf(one, [...path, label === "" ? String(i + 1) : label])
    })
  return Object.entries(output).flatMap(([name, value]) => figuresOf(value, [...path, name]))
}
/** The figures that the table shows. */
export const chosenFigures = (output: unknown, names: ReadonlyArray<string>): ReadonlyArray<Figure> =>
  figuresOf(output).filter(({ path }) => names.some((name) => path === name || path.endsWith(`.${name}`)))

/** The JSON that a benchmark printed: all of it, or a list with one element for each line that is JSON. Undefined if it printed no JSON. */
export const outputOf = (text: string): unknown => {
  const parsed = (one: string): ReadonlyArray<unknown> => {
    try {
      return [JSON.parse(one) as unknown]
    } catch {
      return []
    }
  }
  const [whole] = parsed(text)
  if (whole !== undefined) return whole
  const lines = text.split("\n").flatMap(parsed)
  return lines.length > 1 ? lines : lines[0]
}

/** What a run of a benchmark gave. */
export interface SuiteResult {
  readonly name: string
  /** What it was run from. */
  readonly commit: string
  readonly flags: ReadonlyArray<string>
  readonly seconds: number
  /** How many cores other programs used meanwhile; undefined where that is not known. */
  readonly coresOthers: number | undefined
  readonly warning: string | undefined
  /** The exit code; null if it was killed. */
  readonly exit: number | null
  readonly output: unknown
}
/** Where and when a suite ran. */
export interface SuiteMachine {
  readonly at: string
  readonly commit: string
  readonly node: string
  readonly processor: string
  readonly cores: number
  readonly memoryGiB: number
  readonly loadBefore: number
}

/** Whether figures of these two compare, as far as that can be seen. */
export const isSameMachine = (one: SuiteMachine, other: SuiteMachine): boolean =>
  one.node === other.node &&
  one.processor === other.processor &&
  one.cores === other.cores &&
  one.memoryGiB === other.memoryGiB

const shownNumber = (value: number) =>
  Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : String(Math.round(value * 100) / 100)
/** The table, as Markdown: of all results in the order of the suite, which may be of several runs. */
export const markdownOf = (
  { at, commit, cores, loadBefore, memoryGiB, node, processor }: SuiteMachine,
  given: ReadonlyArray<SuiteResult>
): string => {
  const results = suite.flatMap(({ name }) => given.filter((one) => one.name === name))
  const commits = [...new Set(results.length === 0 ? [commit] : results.map((one) => one.commit))].join(", ")
  const figures = new Map(suite.map((one) => [one.name, one.figures]))
  const rows = results.map(({ coresOthers, exit, flags, name, output, seconds, warning }) => {
    const found = chosenFigures(output, figures.get(name) ?? [])
      .map(({ path, value }) => `${path} ${shownNumber(value)}`)
      .join("; ")
    const what = exit === 0 ? found : `failed with ${exit ?? "a signal"}${found === "" ? "" : `; ${found}`}`
    const others = coresOthers === undefined ? "" : `${coresOthers}${warning === undefined ? "" : " (not quiet)"}`
    return `| \`${[name, ...flags].join(" ")}\` | ${what.replaceAll("|", "\\|")} | ${others} | ${Math.round(seconds)} |`
  })
  return [
    `${at}, commit ${commits}, Node ${node}, ${cores} cores (${processor}), ${memoryGiB} GiB, a load of ${loadBefore} before.`,
    "",
    "| `npm run bench -- …` | figures | cores of others | seconds |",
    "| --- | --- | --- | --- |",
    ...rows,
    ""
  ].join("\n")
}
