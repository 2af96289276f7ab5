// The named points of a bridge. `out` is from Kafka to Pulsar, `in` is from Pulsar to Kafka.
import { afterWriting, type Point, reached as call } from "../harness/points.ts"
import type { Patch } from "../harness/patched-copy.ts"
import { relayPoints } from "../kafka/failpoints.ts"
import { throws } from "./load.ts"

const before = (name: string, file: string, find: string, often = 3): Point => {
  const [indent = ""] = /^ */.exec(find) ?? []
  return { name, file, find, replace: `${indent}${call(name)}\n${find}`, often }
}
const after = (name: string, file: string, find: string, often = 3): Point => {
  const [indent = ""] = /^ */.exec(find) ?? []
  return { name, file, find, replace: `${find}${indent}${call(name)}\n`, often }
}

const out = "src/bridge/to-pulsar.ts"
const producers = "src/bridge/pulsar-producers.ts"
const inward = "src/bridge/to-kafka.ts"
const sending = "      const { duplicate, id } = await this.producer.send(message)\n"
const deadLetters = "    if (prepared.dead.size > 0) yield* this.writeDeadLetters(prepared.dead)\n"

const transaction = new Set(["transaction begun", "records produced", "offsets sent", "transaction ended"])

const wanted = '  if (!isWanted(rule, record)) return { kind: "filtered" }\n'
/** Makes the filter of every rule throw what no error is, for the load's records that ask for it in a header. */
export const strangeThrows: Patch = {
  file: "src/bridge/route.ts",
  find: wanted,
  replace: `  if (record.headers["${throws}"] === "bare") throw Object.create(null)
  if (record.headers["${throws}"] === "strange") throw Object.assign(new Error(), { message: { no: "text" } })
${wanted}`
}

/** All of them, in the order in which a stream reaches them. */
export const points: ReadonlyArray<Point> = [
  before("out, transactional id taken", out, "  let start = yield* startOf(context, source, state, writer)\n", 1),
  before("out, producer's name taken", producers, "    const end = ends[shortName(partition)]\n", 1),
  before("out, end read", producers, "    const opened: OpenProducer = {", 1),
  {
    name: "out, message under way",
    file: "src/pulsar/bridge-side.ts",
    find: sending,
    replace:
      "      const sending = this.producer.send(message)\n" +
      `      ${afterWriting(call("out, message under way"))}\n` +
      "      const { duplicate, id } = await sending\n",
    often: 40
  },
  after("out, some stored", producers, "      const sent = yield* open.producer.send(some)\n"),
  after(
    "out, producer closed to be opened with batching",
    producers,
    "    yield* Scope.close(open.scope, Exit.void)\n",
    1
  ),
  before("out, all stored", out, "    this.counts.dead += dead.reasons.size\n"),
  after(
    "out, position written",
    out,
    "    yield* this.writer.commit(deadLetters, [{ ...positionOf, offset: this.position, metadata }])\n"
  ),
  before("in, subscribed", inward, "  const writer = yield* kafka.openWriter(", 1),
  after("in, transactional id taken", inward, "  const committed = yield* writer.committedPosition(positionOf)\n", 1),
  after("in, taken", inward, "      const taken = yield* this.consumer.take(this.search.maxMessages)\n"),
  {
    name: "in, dead letters stored",
    file: inward,
    find: deadLetters,
    replace: `    if (prepared.dead.size > 0) {\n  ${deadLetters}      ${call("in, dead letters stored")}\n    }\n`,
    often: 1
  },
  before("in, committed", inward, "    this.position = position\n    this.mirrored = offset\n"),
  before("in, acknowledged", inward, "      this.search.grow()\n"),
  ...relayPoints.filter(({ name }) => transaction.has(name))
]
