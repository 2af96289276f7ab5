// A posted body's way into the log: split, checked, appended in chunks, in order, with a result for each event. It knows no HTTP.
import { setImmediate } from "node:timers/promises"
import type { LogError, NewRecord, UnknownTopic } from "../../log/log.ts"
import { partitionOf } from "../../model/partitioner.ts"
import type { Appended, Appender } from "./appender.ts"
import type { Entry } from "../http/catalog.ts"
import type { Checked, Checker, Faulty, Request } from "./validate.ts"
import type { Limits } from "../http/limits.ts"
import type { Metrics } from "../http/metrics.ts"
import { fault, Problem, type Fault } from "../http/problem.ts"
import { Results, type Answer, type Spot } from "./results.ts"
import { elementsOf, linesOf, type EventText } from "./split.ts"

/** What a gateway's ingest works with. */
export interface IngestParts {
  readonly checker: Checker
  readonly appender: Appender
  /** The number of partitions that a topic has in the log. */
  readonly partitions: (topic: string) => Promise<number | LogError | UnknownTopic>
  readonly limits: Limits
  readonly metrics: Metrics
}
/** A body to take in. */
export interface Post {
  readonly text: string
  readonly form: "json" | "ndjson"
  readonly request: Request
  readonly traceId: string
  /** Only rejected events are listed in the answer. */
  readonly minimal: boolean
}

interface Item {
  readonly spot: Spot
  readonly event: Checked | Faulty
}

/** Events that are checked without a pause and appended in one call. */
const chunkEvents = 2_000
/** Characters of such a chunk, about. */
const chunkSize = 1024 * 1024

const malformed = (reason: string): Problem =>
  new Problem(
    400,
    "malformed_json",
    `the body is not JSON: ${reason}`,
    "send one event, an array of events, or NDJSON with its own content type"
  )

// Every element is parsed before any event is taken: an array that is broken at its end is broken.
const textsOfJson = async (body: string, limits: Limits): Promise<ReadonlyArray<EventText>> => {
  const text = body.trim()
  if (!text.startsWith("[")) return [{ text, line: 1 }]
  const elements = elementsOf(text)
  if (elements === undefined) throw malformed("its brackets and commas do not fit")
  checkCount(elements.length, limits)
  for (const [index, element] of elements.entries()) {
    if (index % chunkEvents === chunkEvents - 1) await setImmediate()
    try {
      JSON.parse(element)
    } catch (error) {
      throw malformed(`event ${index} of the array: ${(error as Error).message}`)
    }
  }
  return elements.map((element) => ({ text: element, line: 1 }))
}

const checkCount = (count: number, { events }: Limits): void => {
  if (count > events) {
    throw new Problem(
      413,
      "too_many_events",
      `the body has more than ${events} events`,
      "send it in several requests; nothing of it was taken"
    )
  }
}

const countLines = (text: string): number => {
  let count = 0
  for (const _ of linesOf(text)) count++
  return count
}

/** Takes in one body. Throws a `Problem` where it is refused as a whole; then nothing of it is in the log. */
export const ingest = async (parts: IngestParts, post: Post): Promise<Answer> => {
  const { limits, metrics } = parts
  if (post.text === "")
    throw new Problem(400, "empty_body", "the body is empty", "send an event, an array of events, or NDJSON")
  const ndjson = post.form === "ndjson"
  // a line takes a character at least, so a short body need not be counted
  if (ndjson && post.text.length > limits.events) checkCount(countLines(post.text), limits)
  const texts = ndjson ? linesOf(post.text) : await textsOfJson(post.text, limits)
  const results = new Results(post.minimal)
  const run = new Run(parts, results)
  let storing: Promise<void> | undefined
  for (const chunk of chunksOf(parts.checker, texts, post)) {
    // while one chunk is on its way to the log the next is checked
    if (storing !== undefined) await storing
    storing = run.store(chunk)
    storing.catch(() => {})
    if (chunk.length > 1) await setImmediate()
  }
  if (storing === undefined) throw new Problem(400, "no_events", "the body holds no event", "send at least one")
  await storing
  for (const [code, count] of results.codes) metrics.rejected(code, count)
  return results.answer(post.traceId)
}

function* chunksOf(
  checker: Checker,
  texts: Iterable<EventText>,
  { form, request }: Post
): Generator<ReadonlyArray<Item>> {
  let chunk: Array<Item> = []
  let size = 0
  let index = 0
  for (const { line, text } of texts) {
    chunk.push({
      spot: { index: index++, line: form === "ndjson" ? line : undefined },
      event: checker.check(text, request)
    })
    size += text.length
    if (chunk.length < chunkEvents && size < chunkSize) continue
    yield chunk
    chunk = []
    size = 0
  }
  if (chunk.length > 0) yield chunk
}

/** The storing half of one request. */
class Run {
  readonly #parts: IngestParts
  readonly #results: Results
  /** Topics that failed. Later events of theirs are not tried, or they might overtake earlier ones of their key that are sent again. */
  readonly #broken = new Set<Entry>()

  constructor(parts: IngestParts, results: Results) {
    this.#parts = parts
    this.#results = results
  }

  async store(chunk: ReadonlyArray<Item>): Promise<void> {
    const byTopic = new Map<Entry, Array<Checked["record"]>>()
    for (const { event } of chunk) {
      if (!event.ok) continue
      const records = byTopic.get(event.entry)
      if (records === undefined) byTopic.set(event.entry, [event.record])
      else records.push(event.record)
    }
    const outcomes = new Map<Entry, { readonly appended: Appended | Fault; next: number }>()
    await Promise.all(
      [...byTopic].map(async ([entry, records]) => {
        outcomes.set(entry, { appended: await this.#append(entry, records), next: 0 })
      })
    )
    for (const { event, spot } of chunk) {
      if (!event.ok) {
        this.#results.reject(spot, event.fault)
        continue
      }
      const outcome = outcomes.get(event.entry)!
      const { appended } = outcome
      if ("code" in appended) this.#results.reject(spot, appended)
      else if (appended._tag === "Places") {
        this.#results.accept(event.entry.topic.name, appended.places[outcome.next++]!, event.record.eventId)
      }
    }
  }

  async #append(entry: Entry, drafts: ReadonlyArray<Checked["record"]>): Promise<Appended | Fault> {
    const { appender, metrics, partitions } = this.#parts
    const topic = entry.topic.name
    if (this.#broken.has(entry)) return notAttempted(topic)
    const count = await partitions(topic)
    const began = performance.now()
    const appended =
      typeof count === "number"
        ? await appender.append(topic, withPartitions(drafts, count))
        : ({ _tag: "Failed", error: count } as const)
    if (appended._tag !== "Places") {
      this.#broken.add(entry)
      return appended._tag === "Overloaded" ? overloaded(topic) : storageFault(entry, appended.error)
    }
    metrics.appended(topic, performance.now() - began)
    metrics.accepted(topic, appended.places.length)
    return appended
  }
}

const withPartitions = (drafts: ReadonlyArray<Checked["record"]>, partitions: number): ReadonlyArray<NewRecord> => {
  for (const draft of drafts) (draft as { partition?: number }).partition = partitionOf(draft.key ?? "", partitions)
  return drafts as ReadonlyArray<NewRecord>
}

const again = (entry: Entry): string =>
  entry.topic.idOf === undefined && entry.topic.compacted !== true
    ? "send it again; it may then be in the log twice"
    : "send it again as it is: what is in the log already counts once"

const overloaded = (topic: string): Fault =>
  fault("overloaded", `too many events wait for ${topic}`, "send it again after Retry-After seconds, and fewer at once")

const notAttempted = (topic: string): Fault =>
  fault(
    "not_attempted",
    `earlier events of ${topic} in this request failed, and order is kept`,
    "send it again after them"
  )

const storageFault = (entry: Entry, error: LogError | UnknownTopic): Fault => {
  if (error._tag === "UnknownTopic")
    return fault("topic_not_ready", error.message, "run 'millrace migrate', then send it again")
  if (!error.retryable)
    return fault("log_refused", error.message, "see the server's log; the same event will fail again")
  return fault("log_unavailable", error.message, again(entry))
}
