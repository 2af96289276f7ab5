// `npm run stack` on real services: what `up` starts answers, keeps its data through kills, is shared, and is gone after `down` or when its owner dies.
import { execFile, execFileSync, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import postgres from "postgres"
import { afterAll, assert, describe, it } from "vitest"
import { KafkaJs } from "../../../src/kafka/protocol/kafkajs.ts"
import { up } from "../../../stack/client.ts"
import type { Endpoints } from "../../../stack/service.ts"
import type { Entry, Life, State } from "../../../stack/state.ts"
import { lifeOfProcess, lives } from "../../../stack/state.ts"
import { shared } from "../../../stack/testing.ts"
import { needing, owning } from "../../support/stack.ts"

const main = fileURLToPath(new URL("../../../stack/main.ts", import.meta.url))
const roots: Array<string> = []
const rootOf = () => {
  const root = mkdtempSync(join(tmpdir(), "millrace-stack-test-"))
  roots.push(root)
  return root
}
const given = { MILLRACE_KAFKA_BROKERS: "", MILLRACE_DATABASE_URL: "", MILLRACE_STACK: "local" }

/** Runs the command. Resolves with its output; rejects with its error output if it fails. */
const stack = (root: string, args: string, env: Record<string, string> = {}): Promise<string> => {
  const program = "Deno" in globalThis ? ["run", "-A", main] : [main]
  const options = { env: { ...process.env, ...given, ...env } }
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [...program, ...args.split(" "), "--root", root], options, (error, stdout, stderr) =>
      error === null ? resolve(stdout) : reject(new Error(stderr))
    )
  })
}
const endpointsOf = (output: string) => JSON.parse(output.trim().split("\n").at(-1) ?? "") as Endpoints
const stateOf = (root: string) => JSON.parse(readFileSync(join(root, "state.json"), "utf8")) as State
const statusOf = async (root: string) => JSON.parse(await stack(root, "status --json")) as ReadonlyArray<Entry>
const processesOf = (root: string): ReadonlyArray<Life> => {
  const { life, pid, services } = stateOf(root)
  return [{ pid, life }, ...services.flatMap(({ process: one }) => (one === null ? [] : [one]))]
}
/** Waits until all processes have exited. */
const gone = async (processes: ReadonlyArray<Life>): Promise<void> => {
  while (processes.some(lives)) await sleep(10)
}

const kafkaOf = ({ MILLRACE_KAFKA_BROKERS = "" }: Endpoints) =>
  new KafkaJs.Kafka({
    brokers: [MILLRACE_KAFKA_BROKERS],
    logLevel: KafkaJs.logLevel.NOTHING,
    retry: { initialRetryTime: 50, retries: 20 }
  })

/** The values of a topic, sorted, as a consumer of a new group receives them. */
const valuesOf = async (kafka: KafkaJs.Kafka, topic: string, count: number): Promise<ReadonlyArray<string>> => {
  const consumer = kafka.consumer({ groupId: `g-${Math.random()}` })
  const values: Array<string> = []
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  try {
    await new Promise<void>((resolve, reject) => {
      const eachMessage = async ({ message }: { readonly message: { readonly value: Buffer | null } }) => {
        values.push(String(message.value))
        if (values.length === count) resolve()
      }
      consumer.run({ eachMessage }).catch(reject)
    })
  } finally {
    await consumer.disconnect()
  }
  return values.toSorted()
}
const send = async (kafka: KafkaJs.Kafka, topic: string, values: ReadonlyArray<string>) => {
  const producer = kafka.producer({ idempotent: true })
  await producer.connect()
  await producer.send({ topic, messages: values.map((value) => ({ key: value, value })) })
  await producer.disconnect()
}

afterAll(async () => {
  for (const root of roots) {
    await stack(root, "down")
    rmSync(root, { recursive: true, force: true })
  }
})

const suite = await owning("kafka", "postgres")

suite("kafka and postgres in the background", () => {
  it(
    "answer, are used by a second up, keep their data through kills, and are gone after down",
    { timeout: 300_000 },
    async () => {
      const root = rootOf()
      const endpoints = endpointsOf(await stack(root, "up --services kafka,postgres --json"))
      assert.hasAllKeys(endpoints, ["MILLRACE_KAFKA_BROKERS", "MILLRACE_DATABASE_URL"])
      const kafka = kafkaOf(endpoints)
      const admin = kafka.admin()
      await admin.connect()
      await admin.createTopics({ topics: [{ topic: "t", numPartitions: 3 }] })
      await send(kafka, "t", ["a", "b", "c"])
      assert.deepStrictEqual(await valuesOf(kafka, "t", 3), ["a", "b", "c"])
      const sql = postgres(endpoints.MILLRACE_DATABASE_URL ?? "", { max: 1 })
      await sql`create table kept (n integer)`
      await sql`insert into kept values (7)`
      await sql.end()

      // kafkajs alone sets timers of a negative time, of which Node warns
      assert.notInclude(readFileSync(join(root, "stack.log"), "utf8"), "Warning")

      const processes = processesOf(root)
      assert.lengthOf(processes, 3)
      const joined = endpointsOf(await stack(root, "up --services postgres --json"))
      assert.hasAllKeys(joined, ["MILLRACE_DATABASE_URL"])
      assert.strictEqual(joined.MILLRACE_DATABASE_URL, endpoints.MILLRACE_DATABASE_URL)
      assert.deepStrictEqual(processesOf(root), processes)

      for (const name of ["kafka", "postgres"]) {
        await stack(root, `kill ${name}`)
        const killed = (await statusOf(root)).find((one) => one.name === name)
        assert.isNull(killed?.process)
        await stack(root, `start ${name}`)
      }
      await send(kafka, "t", ["d"])
      assert.deepStrictEqual(await valuesOf(kafka, "t", 4), ["a", "b", "c", "d"])
      await admin.disconnect()
      const again = postgres(endpoints.MILLRACE_DATABASE_URL ?? "", { max: 1 })
      assert.deepStrictEqual([...(await again`select n from kept`)], [{ n: 7 }])
      await again.end()

      const last = processesOf(root)
      assert.lengthOf(last, 3)
      await stack(root, "down")
      assert.deepStrictEqual(last.filter(lives), [])
      for (const left of ["state.json", "kafka", "postgres"]) assert.isFalse(existsSync(join(root, left)), left)
      assert.include(await stack(root, "status"), "nothing runs")
    }
  )

  it("die with a killed background process, and the next up starts new ones", { timeout: 120_000 }, async () => {
    const root = rootOf()
    const first = endpointsOf(await stack(root, "up --json"))
    const processes = processesOf(root)
    process.kill(stateOf(root).pid, "SIGKILL")
    await gone(processes)
    const second = endpointsOf(await stack(root, "up --services postgres --json"))
    assert.notStrictEqual(second.MILLRACE_DATABASE_URL, first.MILLRACE_DATABASE_URL)
    assert.lengthOf(processesOf(root), 2)
  })

  it("stop when the process that owns them is killed", { timeout: 60_000 }, async () => {
    const root = rootOf()
    const owner = spawn("sleep", ["600"])
    const life = lifeOfProcess(owner.pid) as Life
    await up(root, ["postgres"], life)
    const processes = processesOf(root)
    assert.lengthOf(processes.filter(lives), 2)
    owner.kill("SIGKILL")
    await gone(processes)
    assert.isFalse(existsSync(root))
  })

  it("are started once by three commands at the same time", { timeout: 60_000 }, async () => {
    const root = rootOf()
    const outputs = await Promise.all([1, 2, 3].map(() => stack(root, "up --services postgres --json")))
    assert.lengthOf(new Set(outputs), 1)
    assert.lengthOf(processesOf(root), 2)
  })
})

const sharing = await needing("postgres")

sharing("services that test files share", () => {
  it("are the same for every caller, and belong to the test runner", { timeout: 60_000 }, async () => {
    const [one = {}, two = {}] = await Effect.runPromise(
      Effect.all([shared("postgres"), shared("postgres")], { concurrency: 2 })
    )
    assert.deepStrictEqual(one, two)
    const sql = postgres(one.MILLRACE_DATABASE_URL ?? "", { max: 1 })
    assert.lengthOf(await sql`select 1`, 1)
    await sql.end()
    if ((process.env["MILLRACE_DATABASE_URL"] ?? "") !== "") return
    const owner = lifeOfProcess(process.ppid) as Life
    // other files may have asked for other services
    const { services } = stateOf(join(tmpdir(), `millrace-stack-${owner.pid}-${owner.life}`))
    assert.deepStrictEqual(
      services.filter(({ name }) => name === "postgres").map(({ endpoints }) => endpoints),
      [one]
    )
  })
})

describe("a service that cannot be started", () => {
  it("is reported with what is missing, and nothing stays in the background", async () => {
    const root = rootOf()
    const env = { PATH: "/nowhere", JAVA_HOME: "" }
    const said = await stack(root, "up --services kafka", env).catch((error: Error) => error.message)
    assert.match(
      said,
      /^kafka needs MILLRACE_KAFKA_BROKERS, or a Docker engine that answers, or java and mvn; java is not installed.*\. try: /m
    )
    while (execFileSync("ps", ["-eo", "args"], { encoding: "utf8" }).includes(root)) await sleep(20)
    assert.isFalse(existsSync(join(root, "state.json")))
  })
})

describe("endpoints of the environment", () => {
  it("are returned as they are, and are not stopped", async () => {
    const root = rootOf()
    const env = { MILLRACE_KAFKA_BROKERS: "far:9092" }
    assert.deepStrictEqual(endpointsOf(await stack(root, "up --services kafka --json", env)), env)
    const failure = await stack(root, "kill kafka").catch(String)
    assert.include(
      failure,
      "kafka comes from the environment (MILLRACE_KAFKA_BROKERS), so this command must not stop or start it"
    )
  })
})
