// Judges a system's facts: what keeps it from being healthy, who is missing, what is tried again and what needs a person. Pure: no I/O.
import { holdersText, type OpenGate } from "../postgres/store/gate-holders.ts"
import { besideRole, type ProcessRow } from "../postgres/store/processes.ts"
import type { SubscriptionRow } from "../postgres/subscription/lag.ts"
import { projectionSubject, relaySubject, waitingStreamSubject } from "../monitor/ongoing-failures.ts"
import { counted } from "../text/counted.ts"
import { buildText, dataFlag, removedAdvice, removedText } from "./build-text.ts"
import { durationText } from "../text/duration.ts"
import { partitionsText } from "../text/partitions.ts"

/**
 * What is wrong.
 * - `nothing_runs`: no process of the system runs.
 * - `not_running`: no process runs this projection or relay, or none has claimed these partitions.
 * - `behind`: it is processed, but the oldest record or message has waited for too long.
 * - `stuck`: a process has it, and nothing moves.
 * - `trying_again`: it fails, and continues by itself once the cause is gone.
 * - `needs_a_person`: it is halted.
 * - `paused`: a person has paused it.
 * - `not_published`: no relay publishes the topic.
 * - `removed`: the configuration no longer has the projection, or this version of it.
 * - `changed`, `building`: its functions differ from those that made its rows; a newer build follows the live one.
 * - `no_consumer`: messages of a subscription wait, and no consumer is connected.
 * - `gate_open`: views still show the build from before a promotion to transactions that began before it.
 */
export type FindingKind =
  | "nothing_runs"
  | "not_running"
  | "behind"
  | "stuck"
  | "trying_again"
  | "needs_a_person"
  | "paused"
  | "not_published"
  | "removed"
  | "changed"
  | "building"
  | "no_consumer"
  | "gate_open"
/** Something that a person should know. Names of fields are those that `status --json` prints. */
export interface Finding {
  readonly kind: FindingKind
  /** What it is about, such as `projection alerts v1` or `relay to kafka`. */
  readonly what: string
  readonly message: string
  /** What to do; null if nothing has to be done. */
  readonly try: string | null
}
/** Problems make the system unhealthy; notices do not. */
export interface Findings {
  readonly problems: ReadonlyArray<Finding>
  readonly notices: ReadonlyArray<Finding>
}

/** What is known of a partition of a projection. Ages are in milliseconds. */
export interface PartitionFacts {
  readonly name: string
  /** The number of the build. */
  readonly version: number
  /** The version that the code of the build declares. */
  readonly declared: number
  readonly topic: string
  readonly partition: number
  readonly mode: string
  readonly removed: boolean
  readonly lag: number
  readonly halted: string | null
  /** Why it is tried again, and for how long it has been. */
  readonly waiting: string | null
  readonly waiting_ms: number | null
  readonly claimed_by: string | null
  readonly committed_ms: number | null
  /** Of the oldest record that is not processed; null if there is none. */
  readonly oldest_ms: number | null
}
/** What is known of a relay. */
export interface RelayFacts {
  readonly target: string
  readonly lag: number
  readonly oldest_ms: number | null
  readonly halted: string | null
  readonly moved_ms: number | null
}
/** Everything that is judged. */
export interface Facts {
  /** A record or a message that waits for longer makes the system unhealthy, in milliseconds. */
  readonly maxAgeMs: number
  readonly partitions: ReadonlyArray<PartitionFacts>
  readonly relays: ReadonlyArray<RelayFacts>
  /** The targets that the environment configures. */
  readonly configured: ReadonlyArray<string>
  readonly processes: ReadonlyArray<ProcessRow>
  readonly subscriptions: ReadonlyArray<SubscriptionRow>
  /** Topics that no relay publishes. */
  readonly unpublished: ReadonlyArray<string>
  /** The gates of promotions that are open. */
  readonly gates: ReadonlyArray<Pick<OpenGate, "projection" | "holders" | "refusal">>
  /** What holds rebuilds back that a person limited or paused, by the build: `alerts_v2`. Default: nothing. */
  readonly held?: ReadonlyMap<string, string>
  /** For how long projections have been paused, in milliseconds, by their names. Default: none is. */
  readonly paused?: ReadonlyMap<string, number>
  /** The state directory if the database is the embedded one; undefined if it is a server. */
  readonly embeddedDir: string | undefined
}

/** A process that has not written its row for so long is taken for dead, in milliseconds. It writes every 5 seconds. */
export const aliveMs = 20_000
/** A process that started less than this ago is still claiming its partitions, in milliseconds. */
const claimingMs = 10_000
const isNew = ({ startedMs }: ProcessRow) => startedMs < claimingMs
/** Whether a process runs. */
export const isAlive = ({ seenMs }: ProcessRow): boolean => seenMs <= aliveMs

const processText = ({ host, pid }: ProcessRow) => `process ${pid} on ${host}`
const oldestOf = (ages: ReadonlyArray<number | null>): number =>
  ages.reduce<number>((oldest, age) => Math.max(oldest, age ?? 0), 0)

/** Whether a process does more than a program beside the system. */
const isOfSystem = ({ roles }: ProcessRow): boolean => roles.some((role) => role !== besideRole)
/** Which process did it last, if one that died did. */
const lastText = (gone: ProcessRow | undefined) =>
  gone === undefined ? "" : `; ${processText(gone)} did, and was last seen ${durationText(gone.seenMs)} ago`

/** What was found, and whether it makes the system unhealthy. */
interface Judged extends Finding {
  readonly isProblem: boolean
}
const haltedAdvice =
  "remove the cause; the process tries again within a minute. If it does not continue then, restart the process"

/** How to get a role that no process has. An embedded database belongs to one process, which must have all roles. */
const startRole = ({ embeddedDir, processes }: Facts, role: "projections" | "relay"): string => {
  if (embeddedDir === undefined) return `millrace start --roles ${role}`
  const start = `millrace start${dataFlag(embeddedDir)}`
  const [holder] = processes.toSorted((a, b) => a.seenMs - b.seenMs)
  if (holder === undefined) return start
  return `stop ${processText(holder)}${isAlive(holder) ? "" : " if it still runs"}, because an embedded database belongs to one process; then start all roles: ${start}`
}

/** One version of a projection over one topic, and the processes that run it. */
interface ProjectionView {
  readonly facts: Facts
  readonly what: string
  readonly topic: string
  /** Whether it is the live version: what keeps another one back is no fault of the system, but must not pass unseen. */
  readonly isLive: boolean
  readonly partitions: ReadonlyArray<PartitionFacts>
  readonly running: ReadonlyArray<ProcessRow>
  /** A process that ran it and died. */
  readonly gone: ProcessRow | undefined
  /** What a running process tries again at the partition; what one noted that died is over. */
  readonly failureOf: (one: PartitionFacts) => { readonly reason: string; readonly sinceMs: number } | undefined
}
const viewOf = (facts: Facts, partitions: ReadonlyArray<PartitionFacts>): ProjectionView => {
  const [one] = partitions as readonly [PartitionFacts, ...ReadonlyArray<PartitionFacts>]
  const { mode, name, topic, version } = one
  const isLive = mode === "live"
  const runs = facts.processes.filter(({ projections }) => projections.includes(`${name}_v${version}`))
  const running = runs.filter(isAlive)
  const subject = { projection: name, version, topic }
  return {
    facts,
    what: `projection ${buildText(one)}${isLive ? "" : ` (${mode})`}`,
    topic,
    isLive,
    partitions,
    running,
    gone: runs.find((one) => !isAlive(one)),
    failureOf: ({ partition, waiting, waiting_ms }) => {
      if (waiting !== null && running.length > 0) return { reason: waiting, sinceMs: waiting_ms ?? 0 }
      const [own, all] = [projectionSubject({ ...subject, partition }), projectionSubject(subject)]
      return running.flatMap(({ failing }) => failing).find(({ what }) => what === own || what === all)
    }
  }
}
const numbersOf = (list: ReadonlyArray<PartitionFacts>) => partitionsText(list.map(({ partition }) => partition))
const oldestIn = (list: ReadonlyArray<PartitionFacts>) => oldestOf(list.map(({ oldest_ms }) => oldest_ms))
const waitingIn = (topic: string, list: ReadonlyArray<PartitionFacts>) => {
  const lag = list.reduce((sum, one) => sum + one.lag, 0)
  return `${counted(lag, "record")} of ${topic} wait${lag === 1 ? "s" : ""}, the oldest for ${durationText(oldestIn(list))}`
}

/** The partitions that are halted, by the reason. */
const judgeHalted = ({ isLive, partitions, topic, what }: ProjectionView): ReadonlyArray<Judged> => {
  const halted = partitions.filter((one) => one.halted !== null)
  return [...Map.groupBy(halted, (one) => one.halted)].map(([reason, list]) => ({
    kind: "needs_a_person",
    what,
    message: `${numbersOf(list)} of ${topic} halted: ${reason}`,
    try: haltedAdvice,
    isProblem: isLive
  }))
}
/** The partitions that fail and are tried again, by the reason. */
const judgeRetried = ({ facts, failureOf, isLive, partitions, topic, what }: ProjectionView): ReadonlyArray<Judged> => {
  const retried = partitions.filter((one) => one.halted === null && failureOf(one) !== undefined)
  return [...Map.groupBy(retried, (one) => failureOf(one)!.reason)].map(([reason, list]) => {
    const since = oldestOf(list.map((one) => failureOf(one)!.sinceMs))
    const [fails, are] = list.length === 1 ? ["fails", "is"] : ["fail", "are"]
    const message =
      `${numbersOf(list)} of ${topic} ${fails} for ${durationText(since)} and ${are} tried again: ${reason}` +
      (list.some(({ lag }) => lag > 0) ? `; ${waitingIn(topic, list)}` : "")
    const isProblem = isLive && (since > facts.maxAgeMs || oldestIn(list) > facts.maxAgeMs)
    return { kind: "trying_again", what, message, try: null, isProblem }
  })
}
const heldAdvice = ({ embeddedDir }: Facts, name: string, held: string) => {
  const command = `millrace rebuild${dataFlag(embeddedDir)} ${name}`
  return held === "is paused"
    ? `${command} --resume`
    : `wait, or change the limit: ${command} --resume --max-live-lag none --rate max`
}
/** The late partitions that no running process has claimed. A process that has just started is not done with that. */
const judgeUnclaimed = (
  { facts, isLive, running, topic, what }: ProjectionView,
  unclaimed: ReadonlyArray<PartitionFacts>
): ReadonlyArray<Judged> => {
  if (unclaimed.length === 0) return []
  const kind = "not_running"
  const claiming = running.find(isNew)
  if (claiming !== undefined) {
    const message = `${processText(claiming)} started ${durationText(claiming.startedMs)} ago and has not claimed ${numbersOf(unclaimed)} of ${topic} yet; ${waitingIn(topic, unclaimed)}`
    return [{ kind, what, message, try: null, isProblem: false }]
  }
  const last = facts.processes.find((one) => !isAlive(one) && one.id === unclaimed[0]?.claimed_by)
  const message =
    `no process holds ${numbersOf(unclaimed)} of ${topic}${lastText(last)}; ${waitingIn(topic, unclaimed)}; ` +
    `running: ${running.slice(0, 3).map(processText).join(", ")}`
  const start = startRole(facts, "projections")
  const advice =
    facts.embeddedDir === undefined ? `restart a process that runs the projection, or start another: ${start}` : start
  return [{ kind, what, message, try: advice, isProblem: isLive }]
}
/** The partitions whose oldest record is too old, although nothing is known to fail. */
const judgeLate = (view: ProjectionView): ReadonlyArray<Judged> => {
  const { facts, failureOf, gone, isLive, partitions, running, topic, what } = view
  const { maxAgeMs } = facts
  // a follower goes no further than the live build, and waits for that
  const waitsForLive = (one: PartitionFacts) =>
    !isLive &&
    facts.partitions.some(
      ({ lag, mode, name, partition, topic: of }) =>
        mode === "live" && name === one.name && of === one.topic && partition === one.partition && one.lag <= lag
    )
  const late = partitions.filter(
    (one) =>
      one.halted === null &&
      failureOf(one) === undefined &&
      (one.oldest_ms ?? 0) > maxAgeMs &&
      !(running.length > 0 && waitsForLive(one))
  )
  const found: Array<Judged> = []
  const add = (kind: FindingKind, list: ReadonlyArray<PartitionFacts>, message: string, advice: string) => {
    if (list.length > 0) found.push({ kind, what, message, try: advice, isProblem: isLive })
  }
  if (running.length === 0) {
    const message = `no process runs it${lastText(gone)}; ${waitingIn(topic, late)}`
    // what has the code of no process is a removed build: to start one cannot help
    const removed = partitions.find((one) => one.removed)
    if (removed === undefined) add("not_running", late, message, startRole(facts, "projections"))
    else if (isLive) add("not_running", late, message, removedAdvice(facts, removed))
    return found
  }
  const [{ name, version } = { name: "", version: 0 }] = partitions
  const held = facts.held?.get(`${name}_v${version}`)
  if (held !== undefined) {
    add("behind", late, `its rebuild ${held}; ${waitingIn(topic, late)}`, heldAdvice(facts, name, held))
    return found
  }
  const holder = ({ claimed_by }: PartitionFacts) => running.find(({ id }) => id === claimed_by)
  const moves = (one: PartitionFacts) =>
    (one.committed_ms !== null && one.committed_ms <= maxAgeMs) ||
    running.some((by) => by.id === one.claimed_by && isNew(by))
  found.push(
    ...judgeUnclaimed(
      view,
      late.filter((one) => holder(one) === undefined)
    )
  )
  const behind = late.filter((one) => holder(one) !== undefined && moves(one))
  add(
    "behind",
    behind,
    `${waitingIn(topic, behind)}; ${numbersOf(behind)} ${behind.length === 1 ? "is" : "are"} processed, but not fast enough or not for long enough yet`,
    facts.embeddedDir === undefined
      ? `wait, or start more processes: ${startRole(facts, "projections")}`
      : "wait; more processes need a PostgreSQL server, see MILLRACE_DATABASE_URL"
  )
  const stuck = late.filter((one) => holder(one) !== undefined && !moves(one))
  for (const [owner, list] of Map.groupBy(stuck, (one) => holder(one)!)) {
    const committed = list[0]!.committed_ms
    const since = committed === null ? "nothing yet" : `nothing for ${durationText(committed)}`
    add(
      "stuck",
      list,
      `${processText(owner)} holds ${numbersOf(list)} of ${topic} and has committed ${since}: a handler does not end, or a batch takes too long; ${waitingIn(topic, list)}`,
      "look at what the handler waits for, then restart that process"
    )
  }
  return found
}
/** A live build that a person has paused: it is late once an event has waited for too long, as any other one. */
const judgePaused = ({ facts, partitions, topic, what }: ProjectionView, name: string, pausedMs: number): Judged => {
  const waiting = partitions.filter(({ halted, lag }) => halted === null && lag > 0)
  const waits = waiting.length === 0 ? `no record of ${topic} waits` : waitingIn(topic, waiting)
  const message = `it has been paused for ${durationText(pausedMs)}; ${waits}`
  const advice = `millrace resume${dataFlag(facts.embeddedDir)} ${name}`
  return { kind: "paused", what, message, try: advice, isProblem: oldestIn(waiting) > facts.maxAgeMs }
}
/** A projection that the configuration no longer has: that is no fault, but somebody has to decide what becomes of it. */
const judgeRemoved = (facts: Facts, [one]: ReadonlyArray<PartitionFacts>): ReadonlyArray<Judged> =>
  one === undefined
    ? []
    : [
        {
          kind: "removed",
          what: `projection ${buildText(one)}`,
          message: removedText(facts, one),
          try: removedAdvice(facts, one),
          isProblem: false
        }
      ]
const judgeProjection = (facts: Facts, partitions: ReadonlyArray<PartitionFacts>): ReadonlyArray<Judged> => {
  const [{ name, removed }] = partitions as readonly [PartitionFacts, ...ReadonlyArray<PartitionFacts>]
  // while the configuration has another version, the views may still show this one
  const isGone = removed && !facts.partitions.some((other) => other.name === name && !other.removed)
  if (isGone) return judgeRemoved(facts, partitions)
  const view = viewOf(facts, partitions)
  const pausedMs = view.isLive ? facts.paused?.get(name) : undefined
  const judged =
    pausedMs === undefined
      ? [...judgeHalted(view), ...judgeRetried(view), ...judgeLate(view)]
      : [...judgeHalted(view), judgePaused(view, name, pausedMs)]
  return removed ? [...judged, ...judgeRemoved(facts, partitions)] : judged
}

/** Judges one relay. */
const judgeRelay = (facts: Facts, { halted, lag, moved_ms, oldest_ms, target }: RelayFacts): ReadonlyArray<Judged> => {
  const { configured, embeddedDir, maxAgeMs, processes } = facts
  const what = `relay to ${target}`
  const runs = ({ targets }: ProcessRow) => targets.includes(target)
  const running = processes.filter((one) => isAlive(one) && runs(one))
  const found: Array<Judged> = []
  const waiting = `${counted(lag, "message")} wait${lag === 1 ? "s" : ""}, the oldest for ${durationText(oldest_ms ?? 0)}`
  if (!configured.includes(target) && running.length === 0) {
    if (lag > 0) {
      const message = `it is not configured here and no process runs it; ${waiting}, and the outbox keeps what follows its positions`
      const forget = `millrace sql${dataFlag(embeddedDir)} --write "delete from millrace.relay_position where target = '${target}'"`
      const advice = `configure it and start a relay; or, if it was given up: ${forget}`
      found.push({ kind: "not_running", what, message, try: advice, isProblem: false })
    }
    return found
  }
  if (halted !== null)
    found.push({
      kind: "needs_a_person",
      what,
      message: `it is halted: ${halted}`,
      try: "do what the reason says, or remove its cause; the relay then goes on by itself",
      isProblem: true
    })
  const isLate = (oldest_ms ?? 0) > maxAgeMs
  const failing = running.flatMap((one) => one.failing)
  const failureOf = (subject: string) => failing.find((one) => one.what === subject)
  // a halt needs a person, whatever else waits
  const failure =
    failureOf(relaySubject(target)) ?? (halted === null ? failureOf(waitingStreamSubject(target)) : undefined)
  if (failure !== undefined) {
    const isProblem = isLate || failure.sinceMs > maxAgeMs
    const message = `it fails for ${durationText(failure.sinceMs)} and is tried again: ${failure.reason}; ${counted(lag, "message")} wait${lag === 1 ? "s" : ""}`
    found.push({ kind: "trying_again", what, message, try: null, isProblem })
    return found
  }
  if (!isLate) return found
  if (running.length === 0) {
    const gone = processes.find((one) => !isAlive(one) && runs(one))
    const message = `no process runs it${lastText(gone)}; ${waiting}`
    found.push({ kind: "not_running", what, message, try: startRole(facts, "relay"), isProblem: true })
  } else if (halted === null) {
    const moves = moved_ms !== null && moved_ms <= maxAgeMs
    const names = running.slice(0, 3).map(processText).join(", ")
    const message = moves
      ? `${waiting}; it publishes, but not fast enough or not for long enough yet`
      : `${names} run${running.length === 1 ? "s" : ""} it and nothing was published ${moved_ms === null ? "yet" : `for ${durationText(moved_ms)}`}; ${waiting}`
    const advice = moves
      ? "wait. If it falls further behind, the target or the database is too slow for what is published"
      : "look at that process's log, then restart it"
    found.push({ kind: moves ? "behind" : "stuck", what, message, try: advice, isProblem: true })
  }
  return found
}

const judgeSubscription = ({ consumed, subscription, topic, undelivered }: SubscriptionRow): ReadonlyArray<Judged> =>
  consumed || undelivered === 0
    ? []
    : [
        {
          kind: "no_consumer",
          what: `subscription ${subscription} of ${topic}`,
          // whether somebody reads them is not the system's affair, so it stays healthy
          message: `${counted(undelivered, "message")} wait${undelivered === 1 ? "s" : ""} and no consumer is connected`,
          try: "start its consumer",
          isProblem: false
        }
      ]

/** A gate harms nobody but keeps the tables of a build, and makes some queries slower. Running processes close it. */
const judgeGate = ({ holders, projection, refusal }: Facts["gates"][number]): Judged => ({
  kind: "gate_open",
  what: `projection ${projection}`,
  message:
    refusal !== undefined
      ? `its views are a gate between two builds, which cannot be closed: ${refusal}`
      : holders.length === 0
        ? "its views are a gate between two builds, which a promotion opened and has not closed yet"
        : `its views are a gate between two builds, because transactions from before the promotion may still read the old one: ${holdersText(holders)}`,
  try:
    refusal !== undefined
      ? "remove the cause: running processes then close the gate"
      : holders.length === 0
        ? null
        : "nothing, or end these transactions: running processes then close the gate",
  isProblem: false
})

const judgeNothingRuns = ({ embeddedDir, partitions, processes: all, relays }: Facts): ReadonlyArray<Judged> => {
  const processes = all.filter(isOfSystem)
  if (processes.some(isAlive)) return []
  const records = partitions
    .filter(({ mode, removed }) => mode === "live" && !removed)
    .reduce((sum, { lag }) => sum + lag, 0)
  const messages = relays.reduce((sum, { lag }) => sum + lag, 0)
  const work = [
    ...(records > 0 ? [`${counted(records, "record")} to process`] : []),
    ...(messages > 0 ? [`${counted(messages, "message")} to publish`] : [])
  ]
  const message = `no process of the system runs${lastText(processes[0]).replace(" did, and was", " was")}; ${
    work.length === 0 ? "nothing waits" : `waiting: ${work.join(", ")}`
  }`
  return [
    {
      kind: "nothing_runs",
      what: "system",
      message,
      try: `millrace start${dataFlag(embeddedDir)}, or millrace dev${dataFlag(embeddedDir)}`,
      isProblem: work.length > 0
    }
  ]
}

/** Judges the facts. */
export const findingsOf = (facts: Facts): Findings => {
  const projections = Map.groupBy(facts.partitions, ({ name, topic, version }) => `${name} ${version} ${topic}`)
  const judged: ReadonlyArray<Judged> = [
    ...judgeNothingRuns(facts),
    ...[...projections.values()].flatMap((partitions) => judgeProjection(facts, partitions)),
    ...facts.relays.flatMap((relay) => judgeRelay(facts, relay)),
    ...facts.unpublished.map((topic) => ({
      kind: "not_published" as const,
      what: `topic ${topic}`,
      message: "it goes to Pulsar alone, and no relay to Pulsar is configured: what is published to it reaches nobody",
      try: "set MILLRACE_PULSAR_URL for the processes that run the relay, or declare the topic with another `to`",
      isProblem: false
    })),
    ...facts.subscriptions.flatMap(judgeSubscription),
    ...facts.gates.map(judgeGate)
  ]
  const without = ({ isProblem: _, ...finding }: Judged): Finding => finding
  return {
    problems: judged.filter(({ isProblem }) => isProblem).map(without),
    notices: judged.filter(({ isProblem }) => !isProblem).map(without)
  }
}
