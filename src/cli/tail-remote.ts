// Runs `millrace tail --url`: prints the records of a topic, or the changes of a view, that a server on any machine streams over HTTP.
import * as Effect from "effect/Effect"
import type { LogRecord } from "../log/log.ts"
import { memberText } from "../text/json-member.ts"
import { usageError } from "./command-failure.ts"
import { firstId, followServer } from "./follow-server.ts"
import { assertServerUrl } from "./server-url.ts"
import { assertMax } from "./print-messages.ts"
import { askedStart, noPartition, recordPrinter, type TailFlags } from "./tail-actions.ts"
import { viewOf, viewOutput } from "./tail-view.ts"

interface RecordData {
  readonly partition: number
  readonly position: number
  readonly key: string | null
  readonly event_time: number
  readonly appended_at: number
  readonly event_id?: string
  readonly tenant?: string
  readonly traceparent?: string
  readonly schema_version?: number
  readonly headers: Readonly<Record<string, string>>
}
/** The record that a message of a stream with `envelope=record` is about. */
export const recordOf = (data: string): LogRecord => {
  const found = JSON.parse(data) as RecordData
  const value = memberText(data, "value") ?? "null"
  return {
    partition: found.partition,
    position: found.position,
    key: found.key,
    value: value === "null" ? null : value,
    eventTime: found.event_time,
    appendedAt: found.appended_at,
    eventId: found.event_id,
    tenant: found.tenant,
    traceparent: found.traceparent,
    schemaVersion: found.schema_version,
    headers: found.headers
  }
}

/** What `from` of a request is for the flag, which may name positions of some partitions. */
const fromOf = Effect.fnUntraced(function* (url: string, path: string, flags: TailFlags) {
  const { topic } = flags
  const asked = yield* askedStart(flags)
  if (flags.partition !== undefined) {
    const starts = (yield* firstId({ url, path, query: { from: "latest" } })).split(".")
    if (starts[flags.partition] === undefined) return yield* noPartition(flags.partition, topic, starts.length)
  }
  if (typeof asked === "string") return asked
  if ("token" in asked) return asked.token
  if ("time" in asked) return new Date(Math.max(0, asked.time)).toISOString()
  // the first id of a stream has the start of every partition; of those that are not wanted, the newest records are enough
  const others = flags.partition === undefined ? "earliest" : "latest"
  const starts = (yield* firstId({ url, path, query: { from: others } })).split(".")
  for (const { partition, position } of asked.places) {
    if (partition >= starts.length)
      return yield* usageError(
        `--from names partition ${partition}, and ${topic} has ${starts.length}`,
        "partitions are numbered from 0"
      )
    starts[partition] = String(position)
  }
  return starts.join(".")
})

const tailTopic = Effect.fnUntraced(function* (url: string, flags: TailFlags) {
  const { key, tenant, topic } = flags
  const path = `/v1/topics/${encodeURIComponent(topic)}/stream`
  const from = yield* fromOf(url, path, flags)
  const print = recordPrinter(flags)
  yield* followServer({
    url,
    path,
    query: { from, key, tenant, envelope: "record" },
    use: (messages) => print(messages.map(({ data }) => recordOf(data)))
  })
  return 0
})

const tailView = Effect.fnUntraced(function* (url: string, flags: TailFlags) {
  const { from, name } = yield* viewOf(flags)
  if (flags.tenant !== undefined)
    return yield* usageError("--tenant of a view is that of the key with which a server is asked", "leave it out")
  const out = viewOutput(name, flags.json, flags.max ?? Infinity)
  yield* followServer({
    url,
    path: `/v1/views/${encodeURIComponent(name)}/changes`,
    query: { from },
    use: async (messages) => {
      out.connection.send(messages)
      await out.connection.drained(0)
      return !(await out.isDone())
    }
  })
  return 0
})

/** Prints until interrupted, until `max` are printed, or until the reader of the output has closed it. Returns the exit code. */
export const tailRemote = Effect.fnUntraced(function* (url: string, flags: TailFlags) {
  yield* assertMax(flags)
  yield* assertServerUrl(url, "--url", "--url http://127.0.0.1:7070")
  return yield* flags.topic.startsWith("view:") ? tailView(url, flags) : tailTopic(url, flags)
})
