// Dead deadLetters of a bridge in `millrace dlq`: listed, shown, discarded, and retried by their rules, each once even if processes are killed meanwhile.
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { afterAll, assert, beforeAll } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { BridgeOptions } from "../../../src/bridge/definition.ts"
import type { PulsarProducer } from "../../../src/bridge/pulsar-side.ts"
import { type BridgeDeadLetter, parseDeadLetter } from "../../../src/bridge/dead-letter.ts"
import { formatPosition } from "../../../src/bridge/pulsar-position.ts"
import { BridgeDeadLetterSender } from "../../../src/bridge/dead-letter-sender.ts"
import { mirrorOnce } from "../../../src/bridge/bridge.ts"
import { connect, query } from "../../../src/postgres/client/client.ts"
import { type ResendAttempt, type ResendJournal, resend } from "../../../src/dead-letter/resend.ts"
import {
  type BothSides,
  bridgeTest as test,
  declare,
  full,
  messagesOf,
  partitioned,
  publish,
  recordOf,
  tenant,
  transactionOf,
  unique
} from "../../support/bridge.ts"
import { environmentOf, rulesFile } from "../../support/bridge-process.ts"
import * as Cli from "../../support/cli.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { transports } from "../../support/pulsar.ts"
import { recordsOf } from "../../support/relay-kafka.ts"
import { needing } from "../../support/stack.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
const suite = await needing("kafka", "pulsar")

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
interface Listed {
  readonly id: string
  readonly status: string
  readonly kind: string
  readonly rule: string
  readonly message: string
}
/** `millrace dlq` with a database and rules of its own. */
const commandOn = Effect.fnUntraced(function* (sides: BothSides, options: BridgeOptions) {
  const { url } = yield* databaseOn(root)
  const rules = yield* rulesFile(options)
  const environment = {
    ...environmentOf(sides.options),
    MILLRACE_DATABASE_URL: url,
    MILLRACE_PULSAR_NAMESPACE: "bridge"
  }
  const run = (what: string, ...args: ReadonlyArray<string>) =>
    Cli.run(environment, "dlq", what, ...args, "--rules", rules, "--json")
  const json = <A>(what: string, ...args: ReadonlyArray<string>) =>
    Effect.map(run(what, ...args), ({ code, errors, output }) => {
      assert.strictEqual(code, 0, errors)
      return JSON.parse(output) as A
    })
  const list = (...args: ReadonlyArray<string>) => json<ReadonlyArray<Listed>>("list", "--kind", "bridge", ...args)
  return { run, json, list, rules, environment, url }
})

/** Two dead letters on Kafka, one for a tenant that Pulsar does not have and one without a tenant, and one on Pulsar for a topic that Kafka does not have. */
const threeDeadLetters = Effect.fnUntraced(function* (sides: BothSides) {
  const [name, topic, late] = [unique("bridge"), unique("dlq"), unique("late")]
  const source = full(`${topic}.`)
  const options: BridgeOptions = {
    name,
    rules: [
      {
        name: "out",
        from: `kafka:${topic}`,
        to: "pulsar:persistent://{tenant}/bridge/orders",
        headers: { drop: ["debug"], rename: { colour: "color" } },
        tenants: { acme: late }
      },
      { name: "back", from: `pulsar:${source}{kind}`, to: `kafka:home.${topic}.{kind}` }
    ]
  }
  yield* declare(sides.log, topic, 2)
  const headers = { debug: "x", colour: "red" }
  yield* sides.log.append(topic, [
    recordOf("a", "1", { tenant: "acme", eventId: "e1", traceparent, headers, partition: 1 }),
    recordOf("b", "2", { eventId: "e2" })
  ])
  const properties = { event_id: "e3", trace_id: traceparent.slice(3, 35), traceparent, own: "h" }
  yield* publish(sides, `${source}eu`, [{ key: "c", value: "3", properties }])
  const mirror = Effect.flatMap(sides.bridge(options), mirrorOnce)
  yield* mirror
  const makePulsar = Effect.andThen(tenant(sides, late), partitioned(sides, full("orders", late), 4))
  const makeKafka = declare(sides.log, `home.${topic}.eu`, 3)
  return {
    name,
    topic,
    options,
    mirror,
    makePulsar,
    makeKafka,
    onPulsar: full("orders", late),
    onKafka: `home.${topic}.eu`
  }
})

const acrossBoth = Effect.fnUntraced(function* (sides: BothSides) {
  const { makeKafka, makePulsar, mirror, name, onKafka, onPulsar, options, topic } = yield* threeDeadLetters(sides)
  const { environment, json, list, run } = yield* commandOn(sides, options)
  const deadLetters = yield* list()
  const by = (event: string, of: ReadonlyArray<object> = deadLetters): Listed & Record<string, unknown> =>
    of.find((one) => (one as { event_id?: string }).event_id === event) as never
  assert.lengthOf(deadLetters, 3)
  assert.deepInclude(by("e1"), {
    kind: "bridge",
    status: "parked",
    bridge: name,
    rule: "out",
    from: "kafka",
    topic,
    partition: 1,
    offset: "0",
    errors_topic: `${topic}.bridge-errors`,
    key: "a",
    value: "1",
    error: "Refused",
    tenant: "acme",
    trace_id: "0af7651916cd43dd8448eb211c80319c"
  })
  assert.match(by("e2").message, /the record has no tenant, which `to` \(.*\) needs/)
  const shown = yield* json<object>("show", by("e3").id)
  assert.deepInclude(shown, {
    rule: "back",
    from: "pulsar",
    topic: full(`${topic}.eu`),
    errors_topic: full(`${topic}.eu.bridge-errors`)
  })
  assert.match((shown as Listed).message, /the topic does not exist/)
  assert.lengthOf(yield* list("--rule", "back"), 1)
  assert.lengthOf(yield* list("--topic", topic, "--key", "a", "--error", "Refused"), 1)

  // nothing has changed: each stays, with the reason
  const still = yield* run("retry", "--kind", "bridge")
  assert.strictEqual(still.code, 4, still.errors)
  assert.match(still.errors, /stays parked: .*the topic does not exist/)
  assert.match(still.errors, /stays parked: the record has no tenant/)
  assert.deepInclude(JSON.parse(still.output), { retried: 0 })
  assert.lengthOf(yield* list(), 3)

  // without rules they are listed only with --kind bridge, and cannot be sent
  const alone = (what: string, ...args: ReadonlyArray<string>) =>
    Cli.run(environment, "dlq", what, ...args, "--topic", topic, "--json")
  assert.lengthOf(JSON.parse((yield* alone("list", "--kind", "bridge")).output) as ReadonlyArray<object>, 2)
  assert.strictEqual((yield* alone("list")).output, "[]\n")
  assert.match((yield* alone("retry", "--kind", "bridge")).errors, /there are no rules here\ntry: --rules FILE/)
  const nowhere = { ...environment, MILLRACE_DATABASE_URL: undefined }
  const undecided = yield* Cli.run(nowhere, "dlq", "list", "--data", "/nowhere/at-all")
  assert.match(
    undecided.errors,
    /in a database, and there is none: \/nowhere\/at-all does not exist.*\ntry: set MILLRACE_DATABASE_URL/
  )

  yield* makePulsar
  yield* makeKafka
  const some = yield* run("retry", "--kind", "bridge")
  assert.strictEqual(some.code, 4, some.errors)
  assert.deepInclude(JSON.parse(some.output), { retried: 2 })
  assert.deepStrictEqual(
    yield* json("retry", by("e1").id, by("e3").id).pipe(Effect.exit, Effect.map(Exit.isFailure)),
    true
  )
  assert.deepStrictEqual(yield* json("discard", by("e2").id), { discarded: 1 })
  assert.deepStrictEqual(yield* json("retry", "--kind", "bridge"), { retried: 0 })
  assert.deepStrictEqual(yield* list(), [])
  const decided = yield* list("--status", "retried,discarded")
  assert.deepStrictEqual(
    ["e1", "e2", "e3"].map((event) => by(event, decided).status),
    ["retried", "discarded", "retried"]
  )

  // they arrive as the bridge itself would send them, and the bridge treats them like its own
  yield* mirror
  const there = yield* messagesOf(sides, onPulsar)
  assert.lengthOf(there, 1)
  assert.deepInclude(there[0], { key: "a", value: "1", eventTime: 1_357_000_000_000 })
  const { "millrace-bridge-origin": origin, "millrace-bridge-stream": stream, ...properties } = there[0]!.properties
  assert.match(origin!, new RegExp(`^${name}@kafka:`))
  assert.match(stream!, new RegExp(`^${name}/out/${topic}/1#`))
  assert.deepStrictEqual(properties, {
    event_id: "e1",
    tenant: "acme",
    traceparent,
    trace_id: traceparent.slice(3, 35),
    color: "red",
    "millrace-bridge-offset": "0"
  })
  const home = yield* recordsOf(sides.kafkaOptions, sides.log, onKafka)
  assert.lengthOf(home, 1)
  assert.deepInclude(home[0], { key: "c", value: "3", eventId: "e3", traceparent, eventTime: 1_357_000_000_000 })
  assert.strictEqual(home[0]!.headers["own"], "h")
  // both are in the partition of the next record of the key
  yield* sides.log.append(topic, [recordOf("a", "4", { tenant: "acme", partition: 1 })])
  yield* publish(sides, full(`${topic}.eu`), [{ key: "c", value: "5" }])
  yield* mirror
  const parts = (yield* sides.pulsar.partitionsOf(onPulsar)).map((part) => messagesOf(sides, part))
  const values = (yield* Effect.all(parts))
    .map((some) => some.map(({ value }) => value))
    .filter((some) => some.length > 0)
  assert.deepStrictEqual(values, [["1", "4"]])
  const after = yield* recordsOf(sides.kafkaOptions, sides.log, onKafka)
  assert.deepStrictEqual(
    after.map(({ value }) => value),
    ["3", "5"]
  )
  assert.strictEqual(after[0]!.partition, after[1]!.partition)
})

/** Runs a process that retries everything, and kills it before or after it sends the first dead letter. */
const killed = (environment: Readonly<Record<string, string | undefined>>, rules: string, when: "before" | "after") =>
  Effect.callback<void, Error>((resume) => {
    const script = fileURLToPath(new URL("../../support/resend-child.ts", import.meta.url))
    const args = [script, environment["MILLRACE_DATABASE_URL"]!, rules, when]
    const child = spawn(process.execPath, "Deno" in globalThis ? ["run", "-A", ...args] : args, {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, ...environment } as NodeJS.ProcessEnv
    })
    child.stdout.once("data", () => process.kill(child.pid!, "SIGKILL"))
    child.once("close", (code) =>
      resume(code === null ? Effect.void : Effect.fail(new Error(`the child ended with ${code}`)))
    )
  })
const killedAndAgain = Effect.fnUntraced(function* (sides: BothSides) {
  const { makeKafka, makePulsar, onKafka, onPulsar, options, topic } = yield* threeDeadLetters(sides)
  yield* makePulsar
  yield* makeKafka
  const { environment, json, list, run, url } = yield* commandOn(sides, options)
  yield* list()
  // with the rules of one direction at a time, so that the process is killed at a dead letter of each
  for (const rule of options.rules) {
    const one = yield* rulesFile({ ...options, rules: [rule] })
    for (const when of ["before", "after"] as const) yield* killed(environment, one, when)
  }
  const retrying = yield* list("--status", "retrying")
  assert.lengthOf(retrying, 2)
  const ended = yield* run("retry", "--kind", "bridge")
  assert.deepInclude(JSON.parse(ended.output), { retried: 2 }, ended.errors)
  assert.lengthOf(yield* messagesOf(sides, onPulsar), 1)
  assert.lengthOf(yield* recordsOf(sides.kafkaOptions, sides.log, onKafka), 1)
  assert.lengthOf(yield* list("--status", "retried"), 2)
  assert.lengthOf(yield* json<ReadonlyArray<object>>("list", "--topic", topic), 1)
  // while another process retries, this one refuses to
  const sql = yield* connect(url, { max: 1 })
  yield* query("lock", () => sql`select pg_advisory_lock(1835625580, 1684828448)`)
  assert.match((yield* run("retry", "--all")).errors, /another process is retrying or discarding dead letters/)
})

suite("dead letters of a bridge", () => {
  test("are listed, shown, sent by their rules once the cause is fixed, and discarded", acrossBoth)
  for (const transport of transports)
    test(
      "arrive once although the process that sent them was killed before or after sending",
      killedAndAgain,
      transport
    )

  test(
    "of two rules that mirror one topic on Pulsar are two",
    Effect.fnUntraced(function* (sides) {
      const [name, topic] = [unique("bridge"), unique("both")]
      const errors = full(`${topic}-refused`)
      const rule = (one: string) => ({
        name: one,
        from: `pulsar:${full(topic)}`,
        to: `kafka:nowhere.${one}.${topic}`,
        errors
      })
      yield* publish(sides, full(topic), [{ key: "k", value: "1" }])
      yield* Effect.flatMap(sides.bridge({ name, rules: [rule("one")] }), mirrorOnce)
      yield* Effect.flatMap(sides.bridge({ name, rules: [rule("one"), rule("two")] }), mirrorOnce)
      const { list } = yield* commandOn(sides, { name, rules: [rule("one"), rule("two")] })
      assert.deepStrictEqual((yield* list()).map((one) => one.rule).toSorted(), ["one", "two"])
    })
  )

  test(
    "arrive once although an earlier attempt's message arrives late, or its sequence number was used up since",
    Effect.fnUntraced(function* (sides) {
      const { deadLetters, noted, options, part } = yield* unsent(sides)
      const late: { producer?: PulsarProducer } = {}
      const arriving = {
        ...sides.pulsar,
        produce: (...args: Parameters<typeof sides.pulsar.produce>) =>
          Effect.map(sides.pulsar.produce(...args), (producer) => (late.producer = producer)),
        scan: Effect.fnUntraced(function* (...args: Parameters<typeof sides.pulsar.scan>) {
          yield* sides.pulsar.scan(...args)
          const { producer } = late
          delete late.producer
          if (producer !== undefined) yield* producer.send([{ record: routedOf(deadLetters[0]!), sequenceId: 50 }])
        })
      }
      const context = yield* sides.bridge(options)
      const routedOf = (deadLetter: BridgeDeadLetter) => recordSent(context.clusters.kafka, options.name!, deadLetter)
      const first = new BridgeDeadLetterSender({ ...context, pulsar: arriving })
      const end = (yield* sides.pulsar.lastPosition(part))!
      assert.isTrue(
        yield* Effect.scoped(resend(deadLetters[0]!, first, noted({ part, after: formatPosition(end), number: 50 })))
      )
      assert.lengthOf(yield* messagesOf(sides, part), 2)
      // the second one has a sequence number that the broker has passed, and its message is not there
      const second = new BridgeDeadLetterSender(context)
      assert.isTrue(
        yield* Effect.scoped(resend(deadLetters[1]!, second, noted({ part, after: formatPosition(end), number: 40 })))
      )
      assert.deepStrictEqual(
        (yield* messagesOf(sides, part)).map(({ value }) => value),
        ["0", "1", "2"]
      )
    })
  )

  test(
    "arrive once although an earlier sender continues: it is fenced",
    Effect.fnUntraced(function* (sides) {
      const { context, deadLetter, onKafka } = yield* forKafka(sides)
      const [before, now] = [new BridgeDeadLetterSender(context), new BridgeDeadLetterSender(context)]
      const target = yield* before.aim(deadLetter)
      assert.isTrue(
        yield* resend(
          deadLetter,
          now,
          notesOf(({ after, part }) => ({ part, after, number: 1, resumed: true }))
        )
      )
      const fenced = yield* Effect.flip(before.send(deadLetter, { ...target, number: 1, resumed: false }))
      assert.deepInclude({ ...fenced }, { kind: "fenced" })
      assert.lengthOf(yield* recordsOf(sides.kafkaOptions, sides.log, onKafka), 1)
    })
  )

  test(
    "arrive once although an open transaction hides the record that an earlier attempt sent",
    Effect.fnUntraced(function* (sides) {
      const { context, deadLetter, onKafka } = yield* forKafka(sides)
      const before = new BridgeDeadLetterSender(context)
      const target = yield* before.aim(deadLetter)
      const other = yield* transactionOf(sides.kafkaOptions, onKafka, Number(target.part.split("/").at(-1)))
      yield* before.send(deadLetter, { ...target, number: 1, resumed: false })
      const read: typeof sides.log.read = (...args) => Effect.tap(sides.log.read(...args), () => other)
      const now = new BridgeDeadLetterSender({ ...context, log: { ...sides.log, read } })
      const noted = notesOf(() => ({ ...target, number: 1, resumed: true }))
      assert.isTrue(yield* resend(deadLetter, now, noted))
      yield* other
      assert.lengthOf(yield* recordsOf(sides.kafkaOptions, sides.log, onKafka), 1)
    })
  )
})

const notesOf = (
  begin: (target: { readonly part: string; readonly after: string }) => ResendAttempt
): ResendJournal<never> => {
  let number = 1_000
  return {
    begin: (target) => Effect.succeed(begin(target)),
    again: (target) => Effect.sync(() => ({ ...target, number: number++, resumed: true })),
    end: Effect.void,
    undo: () => Effect.void
  }
}
/** A dead letter on Pulsar whose target topic on Kafka exists by now. */
const forKafka = Effect.fnUntraced(function* (sides: BothSides) {
  const { makeKafka, onKafka, options, topic } = yield* threeDeadLetters(sides)
  yield* makeKafka
  const errors = full(`${topic}.eu.bridge-errors`)
  const [message] = yield* messagesOf(sides, errors)
  const { eventTime, key, properties: headers, value } = message!
  const deadLetter = parseDeadLetter("pulsar", errors, { key, value, eventTime, headers }, 0)!
  return { context: yield* sides.bridge(options), deadLetter, onKafka }
})
/** A topic on Pulsar with one mirrored record, and two dead letters that belong behind it. */
const unsent = Effect.fnUntraced(function* (sides: BothSides) {
  const [name, topic] = [unique("bridge"), unique("late")]
  const options = { name, rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }] }
  yield* declare(sides.log, topic, 1)
  yield* sides.log.append(topic, [recordOf("k", "0")])
  yield* Effect.flatMap(sides.bridge(options), mirrorOnce)
  const deadLetters = ["1", "2"].map((value): BridgeDeadLetter => ({
    errors: `${topic}.bridge-errors`,
    side: "kafka",
    bridge: name,
    rule: "out",
    topic,
    partition: 0,
    offset: value,
    stream: `${name}/out/${topic}/0#00000000`,
    reason: "",
    record: { key: "k", value, eventTime: 1_357_000_000_000, headers: {} },
    failedAt: 0
  }))
  const noted = (one: Omit<ResendAttempt, "resumed">) => notesOf(() => ({ ...one, resumed: true }))
  return { deadLetters, options, part: full(topic), noted }
})
/** What the rule makes of a dead letter. */
const recordSent = (cluster: string, name: string, { offset, record, stream }: BridgeDeadLetter) => ({
  ...record,
  headers: {
    "millrace-bridge-origin": `${name}@${cluster}`,
    "millrace-bridge-stream": stream,
    "millrace-bridge-offset": offset
  }
})
