// What `millrace rebuild` prints for people: the plan, the progress and the result. Pure.
import type { Progress } from "./progress.ts"
import { estimate } from "../text/rate.ts"
import { refusalText } from "../postgres/store/view-plan.ts"
import type { StoredRebuild } from "../postgres/store/rebuild.ts"
import type { RebuiltKeys } from "../system/rebuild-keys.ts"
import type { Rebuilt, RebuildProgress } from "../system/rebuild.ts"
import type { RebuildPlan } from "../system/rebuild-plan.ts"
import { countedLarge, grouped } from "../text/counted.ts"

const sizeText = (bytes: number) =>
  bytes < 1 << 20
    ? `${Math.ceil(bytes / 1024)} KiB`
    : bytes < 1 << 30
      ? `${(bytes / 2 ** 20).toFixed(1)} MiB`
      : `${(bytes / 2 ** 30).toFixed(1)} GiB`

const rateOrigin: Readonly<Record<RebuildPlan["rate_from"], string>> = {
  measured: "as the last rebuild here was measured",
  asked: "as --rate asks",
  assumed: "an assumption, because no rebuild of the projection was measured here yet"
}

const timeText = ({ rate_from: origin, seconds, seconds_at_best: best }: RebuildPlan) =>
  origin === "assumed" && best < seconds
    ? `${estimate(best)}, as fast projections take, to ${estimate(seconds)}`
    : `about ${estimate(seconds)}`
const replayLines = (plan: RebuildPlan) => [
  ...plan.topics.map(
    (one) =>
      `  replay   ${countedLarge(one.events, "record")} of ${one.topic} (${countedLarge(one.partitions, "partition")})`
  ),
  `  time     ${timeText(plan)}, at ${countedLarge(Math.round(plan.events_per_second), "event")} a second: ${rateOrigin[plan.rate_from]}`
]
/** A plan as a few lines. */
export const planText = (plan: RebuildPlan): string => {
  const { build, continues, copies, from, keys, live, projection, until, version } = plan
  const lines = [
    `${continues ? "continue" : "create"} build ${build} of ${projection} (version ${version}) beside build ${live.build} (version ${live.version}), which stays live`,
    ...(copies ? [`  copy     the rows and positions of build ${live.build}; nothing is replayed`] : replayLines(plan)),
    `  disk     ${sizeText(plan.disk_bytes)} more, if the new tables get as large as those of build ${live.build}`
  ]
  if (keys !== null) {
    const unknown =
      keys.unknown === 0
        ? ""
        : `; ${grouped(keys.unknown)} ${keys.unknown === 1 ? "is" : "are"} unknown to the log, and left as ${keys.unknown === 1 ? "it is" : "they are"}`
    lines.push(
      `  keys     ${grouped(keys.found)} of ${countedLarge(keys.given, "key")} ${keys.found === 1 ? "has" : "have"} ${countedLarge(keys.events, "event")}${unknown}`
    )
    lines.push(`  then     their rows are put into a copy of build ${live.build}, which is build ${build}`)
  }
  if (from !== null) lines.push(`  from     it has only what the log stored at ${from} or later`)
  if (until !== null)
    lines.push(
      `  until    it has what the log stored before ${until}, and ends there: it is for looking only, and never promoted`
    )
  else if (plan.muted.length > 0)
    lines.push(`  muted    nothing is published in ${plan.muted.join(", ")} before the build is promoted`)
  for (const one of plan.refused_views) lines.push(`  refused  promote, as things are: ${refusalText([one])}`)
  for (const one of plan.not_reproduced) lines.push(`  differs  ${one}`)
  return lines.join("\n")
}

/** How far a rebuild is. */
export const progressOf = (progress: RebuildProgress): Progress => {
  const { left, processed } = progress
  return { fraction: left + processed === 0 ? 1 : processed / (processed + left), text: progressText(progress) }
}
const progressText = ({ left, perSecond, processed, secondsLeft, state, waits }: RebuildProgress): string =>
  state === "paused"
    ? `paused, with ${countedLarge(left, "record")} to go`
    : `${countedLarge(processed, "record")} replayed, ${grouped(left)} to go, ${grouped(perSecond)} a second` +
      (secondsLeft === undefined ? "" : `, about ${estimate(secondsLeft)} left`) +
      (waits === undefined ? "" : `; waits: ${waits}`)

/** The limits that a rebuild goes by, as one line; undefined if it has none. */
export const limitsText = ({ maxLiveLagMs, rate }: StoredRebuild): string | undefined => {
  const limits = [
    ...(rate === null ? [] : [`--rate ${rate}`]),
    ...(maxLiveLagMs === null ? [] : [`--max-live-lag ${maxLiveLagMs / 1000}`])
  ]
  return limits.length === 0
    ? undefined
    : `limits: ${limits.join(" ")}, until another value is given (--rate max, --max-live-lag none)`
}

/** The result, and what to do next. */
export const rebuiltText = (
  name: string,
  { build, events, live, seconds, tables = [] }: Rebuilt & Partial<Pick<RebuiltKeys, "tables">>,
  until: string | null
): string =>
  until === null
    ? [
        ...tables.map(
          (one) =>
            `${one.name}: ${countedLarge(one.removed, "row")} of the keys ${one.removed === 1 ? "was" : "were"} replaced by ${grouped(one.inserted)}`
        ),
        followingText(name, { build, events, live, seconds })
      ].join("\n")
    : `build ${build} of ${name} has what the log stored before ${until}: ${countedLarge(events, "record")} in ${estimate(seconds)}\n` +
      `read its tables as ${name}_v${build}.TABLE, for example with millrace sql; delete it with: millrace retire ${name} ${build} --drop`
const followingText = (name: string, { build, events, live, seconds }: Rebuilt): string =>
  `build ${build} of ${name} is where build ${live} is: ${countedLarge(events, "record")} in ${estimate(seconds)}. It follows from now on, wherever the projection runs\n` +
  `compare both with: millrace diff ${name}; then: millrace promote ${name}, or give it up with: millrace rebuild ${name} --cancel`
