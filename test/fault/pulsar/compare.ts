// Compares the result of a run with what was published: the topics by reading them, the subscriptions by their rows, and the parked messages.
import * as Effect from "effect/Effect"
import { connect } from "../../../src/pulsar/client/cluster.ts"
import type { Received } from "../../../src/pulsar/client/transport.ts"
import { messagesOf } from "../../support/relay-pulsar.ts"
import type { Differences } from "../harness/differences.ts"
import type { Fed } from "./feeder.ts"
import type { Run } from "./run.ts"
import { tenants, topics } from "./services.ts"
import { partitionsOf, tooLarge } from "./steps.ts"
import { subscriptions } from "./subscriptions.ts"

interface Found {
  readonly stream: string
  readonly seq: number
  readonly key: string
}
const nameOf = ({ seq, stream }: Pick<Found, "stream" | "seq">) => `${stream}#${seq}`

/** Each expected message is there once, no other one is, and sequence numbers ascend within each group. */
const once = (
  differences: Differences,
  where: string,
  found: ReadonlyArray<Found>,
  expected: ReadonlyArray<Fed>,
  groupOf: ((found: Found) => string) | undefined
): void => {
  const keys = new Map(expected.map((fed) => [nameOf(fed), fed.key]))
  const seen = new Set<string>()
  const last = new Map<string, number>()
  for (const one of found) {
    const name = nameOf(one)
    if (!keys.has(name)) differences.add("wrong", `${where}: ${name} does not belong there`)
    else if (keys.get(name) !== one.key) differences.add("wrong", `${where}: ${name} has the key ${one.key}`)
    if (seen.has(name)) differences.add("doubled", `${where}: ${name} by ${JSON.stringify(one)}`)
    seen.add(name)
    if (groupOf === undefined) continue
    const group = groupOf(one)
    const before = last.get(group) ?? 0
    if (one.seq < before) differences.add("order", `${where}: ${group}: ${one.seq} after ${before}`)
    last.set(group, Math.max(before, one.seq))
  }
  for (const name of keys.keys()) if (!seen.has(name)) differences.add("lost", `${where}: ${name}`)
}

const asFound = ({ key, properties }: Received): Found => ({
  key,
  stream: properties["millrace-stream"] ?? "",
  seq: Number(properties["millrace-seq"])
})
const compareTopics = (run: Run) =>
  Effect.gen(function* () {
    const { differences, feeder, services } = run
    const cluster = yield* connect(services.direct)
    for (const tenant of tenants)
      for (const topic of Object.keys(topics)) {
        const expected = feeder.fed.filter((fed) => !fed.poison && fed.tenant === tenant && fed.topic === topic)
        const found: Array<Found> = []
        const partitions = partitionsOf(tenant).filter((name) => name.startsWith(`${tenant}/alerts/${topic}`))
        for (const name of partitions)
          for (const message of yield* Effect.promise(() => messagesOf(cluster, `persistent://${name}`))) {
            found.push(asFound(message))
            if (message.id.batchSize > 1) run.batched += 1
          }
        // a stream is in order within each partition, and a key has one partition
        const groupOf = partitions.length === 1 ? (one: Found) => one.stream : byKey
        once(differences, `${tenant}/${topic}`, found, expected, groupOf)
      }
  }).pipe(Effect.scoped)
const byKey = ({ key, stream }: Found) => `${stream} ${key}`

const compareSubscriptions = async ({ differences, feeder, options, services }: Run) => {
  for (const { name, tenant, topic, type } of subscriptions) {
    const found = await services.sql<Array<Found>>`
      select stream, seq::float8 as seq, key, process from handled where subscription = ${name} order by id`
    const expected = feeder.fed.filter((fed) => !fed.poison && fed.tenant === tenant && fed.topic === topic)
    const keeps = type === "failover" || (type === "keyShared" && options.batching !== true)
    once(differences, name, found, expected, keeps ? byKey : undefined)
  }
}
const compareParked = async ({ differences, faults, feeder, services }: Run) => {
  const found = await services.sql<Array<Found & { reason: string }>>`
    select projection || '/' || source || '/' || partition as stream, seq::float8 as seq, key, reason
    from millrace.relay_parked where target = 'pulsar'`
  once(
    differences,
    "parked",
    found,
    feeder.fed.filter(({ poison }) => poison),
    undefined
  )
  // after a fault the relay may know only that later messages are there, so any reason will do
  if (Object.keys(faults).some((name) => name !== tooLarge)) return
  for (const { reason, seq, stream } of found)
    if (reason.startsWith("Pulsar accepted message")) differences.add("wrong", `${stream} ${seq} is parked: ${reason}`)
}

/** Compares everything. No process may run. */
export const compare = async (run: Run): Promise<void> => {
  await Effect.runPromise(compareTopics(run))
  await compareSubscriptions(run)
  await compareParked(run)
  for (const { halted, seq, stream } of await run.positions()) {
    run.differences.same(`the position of ${stream}`, seq, run.feeder.ends.get(stream))
    run.differences.same(`why ${stream} is halted`, halted, null)
  }
}
