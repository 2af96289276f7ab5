// Reads a topic with Kafka's own console consumer, read committed, so that the comparison does not depend on this project's client.
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { jars, java } from "../../../stack/jars.ts"
import { patience } from "../harness/patience.ts"

/** A record as the consumer printed it. */
export interface Printed {
  readonly partition: number
  readonly offset: number
  readonly headers: Readonly<Record<string, string>>
  readonly key: string | null
  readonly value: string | null
}
/** What the consumer prints for null. */
const none = "<null>"
const patienceMs = 300_000

const headersOf = (text: string): Record<string, string> => {
  const headers: Record<string, string> = {}
  if (text === "NO_HEADERS") return headers
  for (const part of text.split(",")) {
    const colon = part.indexOf(":")
    headers[part.slice(0, colon)] = part.slice(colon + 1)
  }
  return headers
}
const parse = (line: string): Printed => {
  const [partition = "", offset = "", headers = "", key = "", ...rest] = line.split("\t")
  const value = rest.join("\t")
  if (!partition.startsWith("Partition:") || !offset.startsWith("Offset:")) throw new Error(`no record: ${line}`)
  return {
    partition: Number(partition.slice(10)),
    offset: Number(offset.slice(7)),
    headers: headersOf(headers),
    key: key === none ? null : key,
    value: value === none ? null : value
  }
}

/**
 * Reads a topic from its beginning, and calls `take` with each record in the order of its partition, until `isLast` has been true for a record of
 * each partition. Records behind that one are ignored. Rejects if this takes more than five minutes.
 */
export const consume = async (options: {
  readonly brokers: string
  readonly topic: string
  readonly partitions: number
  readonly isLast: (record: Printed) => boolean
  readonly takeLast?: boolean
  readonly take: (record: Printed) => void
}): Promise<number> => {
  const { brokers, isLast, partitions, take, takeLast = false, topic } = options
  const libraries = await jars("kafka")
  const directory = mkdtempSync(join(tmpdir(), "millrace-consumer-"))
  const logging = join(directory, "log4j2.properties")
  writeFileSync(logging, "status = error\nrootLogger.level = off\n")
  const print = ["partition", "offset", "headers", "key"].flatMap((what) => ["--property", `print.${what}=true`])
  const jvm = [
    "-Xmx256m",
    "-Xshare:auto",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    `-Dlog4j2.configurationFile=${logging}`
  ]
  const program = ["org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", brokers, "--topic", topic]
  const how = ["--from-beginning", "--isolation-level", "read_committed", "--property", `null.literal=${none}`]
  const child = spawn(java(), [...jvm, "-cp", join(libraries, "*"), ...program, ...how, ...print], {
    stdio: ["ignore", "pipe", "pipe"]
  })
  const seen = new Set<number>()
  let failure: Error | undefined
  let count = 0
  let errors = ""
  let rest = ""
  const line = (text: string) => {
    const record = parse(text)
    if (seen.has(record.partition)) return
    const last = isLast(record)
    if (!last || takeLast) {
      count++
      take(record)
    }
    if (last) seen.add(record.partition)
  }
  child.stderr.on("data", (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-2_000)))
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n")
    rest = lines.pop()!
    try {
      for (const text of lines) if (seen.size < partitions) line(text)
    } catch (error) {
      failure = error as Error
    }
    if (seen.size === partitions || failure !== undefined) child.kill("SIGKILL")
  })
  const waiting = new AbortController()
  const closed = new Promise((resolve) => child.once("close", resolve))
  if ((await Promise.race([closed, patience(patienceMs, waiting.signal)])) === "late") {
    failure = new Error(
      `${topic}: ${partitions - seen.size} partitions did not reach their end within ${patienceMs} ms`
    )
    child.kill("SIGKILL")
    await closed
  }
  waiting.abort()
  rmSync(directory, { recursive: true, force: true })
  if (failure !== undefined) throw failure
  if (seen.size < partitions) throw new Error(`the console consumer of ${topic} ended early: ${errors}`)
  return count
}
