// The named points of processes that run projections, and of relays to Kafka.
import type { Patch } from "../harness/patched-copy.ts"
import * as Points from "../harness/points.ts"
import { thrown } from "./load.ts"

const { afterWriting, greed, reached } = Points

/** A point of a role. They are in the order in which a process reaches them. */
export interface Point extends Points.Point {
  readonly role: "projections" | "relay"
}

const projector = (name: string, file: string, find: string, replace: (call: string) => string, often = 6): Point => ({
  name,
  often,
  role: "projections",
  file,
  find,
  replace: replace(reached(name))
})

const claimed = '  yield* assertSameLog(claim, attempts.halt?.retry === "proven" ? attempts.halt.reason : undefined)\n'
const taken = "    const batch = yield* takeWithin(follower === undefined ? processor.announceDueMs : idleMs)\n"
const changed = "      Effect.flatMap((changes) => this.send(changes)),\n"
const sent = "    const rows = await answered(\n"
const answered =
  "    return new Map(rows.map(({ mode, outbox_seq: outboxSeq, part }) => [part, { mode, outboxSeq }]))\n"
const settled = "      Effect.map((claim) => this.onCommitted(claim)),\n"
const revoked = "    for (const [, one] of stopping) one.isStopping = true\n"

/** Points of a process that runs projections. */
export const projectorPoints: ReadonlyArray<Point> = [
  projector(
    "after claim",
    "src/runner/runner.ts",
    claimed,
    (call) => `  globalThis.claimed()\n  ${call}\n${claimed}`,
    3
  ),
  projector("after fetch", "src/runner/runner.ts", taken, (call) => `${taken}    ${call}\n`),
  projector(
    "before commit",
    "src/runner/partition-processor.ts",
    changed,
    // the harness takes over the partitions of this projection alone
    (call) => `      Effect.tap(() => Effect.sync(() => this.projection.name === "signals" && ${call})),\n${changed}`
  ),
  projector("commit sent", "src/postgres/store/committer.ts", sent, (call) => `    ${afterWriting(call)}\n${sent}`),
  projector(
    "after commit",
    "src/postgres/store/committer.ts",
    answered,
    (call) => `    globalThis.answered(commits.length - rows.length)\n    ${call}\n${answered}`
  ),
  projector(
    "after settle",
    "src/runner/partition-processor.ts",
    settled,
    (call) => `${settled}      Effect.tap(() => Effect.sync(() => ${call})),\n`
  ),
  projector("at revocation", "src/log/group-partitions.ts", revoked, (call) => `    ${call}\n${revoked}`, 1)
]

const relay = (name: string, file: string, find: string, replace: (call: string) => string, often = 3): Point => ({
  ...projector(name, file, find, replace, often),
  role: "relay"
})

const transaction = "src/kafka/protocol/transactional-producer.ts"
const begun = "    await Promise.all(begin)\n"
const produced = "    await this.append(batches)\n"
const ended =
  '    await this.coordinated("transaction", id, (broker) => Wire.endTransaction(broker, id, identity, true, requestMs))\n'
const tookOver = "    this.fenced = false\n    // checked after the id was taken over"
const sending = "    const sent = yield* Effect.exit(this.attempt(() => this.send(producer, transaction, due)))\n"
const moved = "    for (const position of due) this.marked.delete(streamName(position))\n"

/** Points of a process that relays. */
export const relayPoints: ReadonlyArray<Point> = [
  relay("after taking the id over", "src/kafka/relay/lane.ts", tookOver, (call) => `    ${call}\n${tookOver}`, 1),
  relay("before transaction", "src/kafka/relay/lane.ts", sending, (call) => `    ${call}\n${sending}`),
  relay("transaction begun", transaction, begun, (call) => `${begun}    ${call}\n`),
  relay("records produced", transaction, produced, (call) => `${produced}    ${call}\n`),
  relay("offsets sent", transaction, ended, (call) => `    ${call}\n${ended}`),
  relay("transaction ended", transaction, ended, (call) => `${ended}    ${call}\n`),
  relay("position moved", "src/kafka/relay/lane.ts", moved, (call) => `    ${call}\n${moved}`)
]

const scored = "    const score = amount * risk_weight\n"
/** Makes the reference application's handler throw what no error is, for the load's events with these amounts. */
const strangeThrows: Patch = {
  file: "projections/signals.ts",
  find: scored,
  replace: `    if (amount === ${thrown.bare}) throw Object.create(null)
    if (amount === ${thrown.strange}) throw Object.assign(new Error(), { message: { no: "text" } })
${scored}`
}

/** All points, and what else a run's steps need. */
export const points: ReadonlyArray<Patch> = [...projectorPoints, ...relayPoints, greed, strangeThrows]
