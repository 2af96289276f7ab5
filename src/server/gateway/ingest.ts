// Ingests the body of a post: splits it into events, checks them, and appends them in chunks and in order, with a result for each event.
import { setImmediate } from "node:timers/promises"
import type { LogError, NewRecord, UnknownTopic } from "../../log/log.ts"
import { partitionOf } from "../../model/partitioner.ts"
import type { Appended, Appender } from "./appender.ts"
import type { CatalogTopic } from "../http/catalog.ts"
import type { ValidEvent, Checker, InvalidEvent, RequestContext } from "./validate.ts"
import type { Limits } from "../http/limits.ts"
import type { Metrics } from "../http/metrics.ts"
import { fault, Problem, type Fault } from "../http/problem.ts"
import { withNewSpan } from "../http/trace.ts"
import { Results, type Answer, type EventPlace } from "./results.ts"
import { elementsOf, linesOf, type EventText } from "./split.ts"

/** What `ingest` needs. */
export interface IngestParts {
  readonly checker: Checker
  readonly appender: Appender
  /** Resolves to the number of partitions of a topic, or to the log's error. */
  readonly partitions: (topic: string) => Promise<number | LogError | UnknownTopic>
  readonly limits: Limits
  readonly metrics: Metrics
}
/** A body to ingest. */
export interface Post {
  readonly text: string
  readonly form: "json" | "ndjson"
  readonly request: RequestContext
  readonly traceId: string
  /** The response lists rejected events only. */
  readonly minimal: boolean
}

interface Item {
  readonly spot: EventPlace
  readonly event: ValidEvent | InvalidEvent
}

/** The most events that are checked without a pause and appended in one call. */
const chunkEvents = 2_000
/** About how many characters such a chunk has at most. */
const chunkSize = 1024 * 1024

const malformed = (reason: string): Problem =>
  new Problem(
    400,
    "malformed_json",
    `the body is not valid JSON: ${reason}`,
    "send one event, an array of events, or NDJSON as application/x-ndjson"
  )

// Every element is parsed before any event is appended, because an array that is invalid at its end is invalid as a whole.
const textsOfJson = async (body: string, limits: Limits): Promise<ReadonlyArray<EventText>> => {
  const text = body.trim()
  if (!text.startsWith("[")) return [{ text, line: 1 }]
  const elements = await elementsIn(text, limits)
  let size = 0
  for (const [index, element] of elements.entries()) {
    // one that is too large is refused unparsed, with its place
    if (element.length > limits.eventBytes) continue
    size += element.length
    if (index % chunkEvents === chunkEvents - 1 || size > chunkSize) {
      await setImmediate()
      size = 0
    }
    try {
      JSON.parse(element)
    } catch (error) {
      throw malformed(`event ${index} of the array: ${(error as Error).message}`)
    }
  }
  return elements.map((element) => ({ text: element, line: 1 }))
}
const elementsIn = async (text: string, limits: Limits): Promise<ReadonlyArray<string>> => {
  const elements: Array<string> = []
  const found = elementsOf(text)
  for (;;) {
    const { done, value } = found.next()
    if (done === true) {
      if (!value) throw malformed("its brackets or commas do not match")
      return elements
    }
    if (value === undefined) await setImmediate()
    else checkCount(elements.push(value), limits)
  }
}

const checkCount = (count: number, { events }: Limits): void => {
  if (count > events) {
    throw new Problem(
      413,
      "too_many_events",
      `the body has more than ${events} events`,
      "send it in several requests; nothing of it was stored"
    )
  }
}

/** Throws a `Problem` if a body has too many lines. */
const checkLines = async (text: string, limits: Limits): Promise<void> => {
  // a line has at least one character, so the lines of a short body need not be counted
  if (text.length <= limits.events) return
  let count = 0
  for (const line of linesOf(text)) {
    if (line === undefined) await setImmediate()
    else checkCount(++count, limits)
  }
}

/** Ingests one body. Rejects with a `Problem` if it is refused as a whole; then nothing of it is in the log. */
export const ingest = async (parts: IngestParts, post: Post): Promise<Answer> => {
  const { limits, metrics } = parts
  if (post.text === "")
    throw new Problem(400, "empty_body", "the body is empty", "send an event, an array of events, or NDJSON")
  const ndjson = post.form === "ndjson"
  if (ndjson) await checkLines(post.text, limits)
  const texts = ndjson ? linesOf(post.text) : await textsOfJson(post.text, limits)
  const results = new Results(post.minimal)
  const requestAppender = new RequestAppender(parts, results)
  let storing: Promise<void> | undefined
  for (const chunk of chunksOf(parts.checker, texts, post)) {
    if (chunk.length === 0) {
      await setImmediate()
      continue
    }
    // while one chunk is being appended, the next is checked
    if (storing !== undefined) await storing
    storing = requestAppender.store(chunk)
    storing.catch(() => {})
    if (chunk.length > 1) await setImmediate()
  }
  if (storing === undefined) throw new Problem(400, "no_events", "the body contains no event", "send at least one")
  await storing
  for (const [code, count] of results.codes) metrics.rejected(code, count)
  return results.answer(post.traceId)
}

/** The events in chunks. Undefined among the texts gives an empty one. */
function* chunksOf(
  checker: Checker,
  texts: Iterable<EventText | undefined>,
  { form, request, text: body }: Post
): Generator<ReadonlyArray<Item>> {
  // the events of one request have spans of their own, so that what each of them causes can be told apart in its trace
  const isBulk = form === "ndjson" || body.trimStart().startsWith("[")
  const { traceparent } = request
  let chunk: Array<Item> = []
  let size = 0
  let index = 0
  for (const found of texts) {
    if (found === undefined) {
      yield []
      continue
    }
    const { line, text } = found
    chunk.push({
      spot: { index: index++, line: form === "ndjson" ? line : undefined },
      event: checker.check(text, isBulk ? { ...request, traceparent: withNewSpan(traceparent) } : request)
    })
    size += text.length
    if (chunk.length < chunkEvents && size < chunkSize) continue
    yield chunk
    chunk = []
    size = 0
  }
  if (chunk.length > 0) yield chunk
}

/** Appends the events of one request, and collects their results. */
class RequestAppender {
  readonly #parts: IngestParts
  readonly #results: Results
  /** Topics that failed. Their later events are not appended, because they could overtake earlier events of their key that are sent again. */
  readonly #broken = new Set<CatalogTopic>()

  constructor(parts: IngestParts, results: Results) {
    this.#parts = parts
    this.#results = results
  }

  async store(chunk: ReadonlyArray<Item>): Promise<void> {
    const byTopic = new Map<CatalogTopic, Array<ValidEvent["record"]>>()
    for (const { event } of chunk) {
      if (!event.ok) continue
      const records = byTopic.get(event.entry)
      if (records === undefined) byTopic.set(event.entry, [event.record])
      else records.push(event.record)
    }
    const outcomes = new Map<CatalogTopic, { readonly appended: Appended | Fault; next: number }>()
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
      else if (appended._tag === "Positions") {
        this.#results.accept(event.entry.topic.name, appended.positions[outcome.next++]!, event.record.eventId)
      }
    }
  }

  async #append(entry: CatalogTopic, drafts: ReadonlyArray<ValidEvent["record"]>): Promise<Appended | Fault> {
    const { appender, metrics, partitions } = this.#parts
    const topic = entry.topic.name
    if (this.#broken.has(entry)) return notAttempted(topic)
    const count = await partitions(topic)
    const began = performance.now()
    const appended =
      typeof count === "number"
        ? await appender.append(topic, withPartitions(drafts, count))
        : ({ _tag: "Failed", error: count } as const)
    if (appended._tag !== "Positions") {
      this.#broken.add(entry)
      if (appended._tag === "Overloaded") return overloaded(topic)
      if (appended._tag === "Failed") return storageFault(entry, appended.error)
      const silent = `the log has not answered for ${Math.floor(appended.ms / 1_000)} s`
      return appended._tag === "Stalled"
        ? fault("log_unavailable", `${silent}; the event was not appended`, "send it again after Retry-After seconds")
        : fault("log_unavailable", silent, again(entry))
    }
    metrics.appended(topic, performance.now() - began)
    metrics.accepted(topic, appended.positions.length)
    return appended
  }
}

const withPartitions = (drafts: ReadonlyArray<ValidEvent["record"]>, partitions: number): ReadonlyArray<NewRecord> => {
  for (const draft of drafts) (draft as { partition?: number }).partition = partitionOf(draft.key ?? "", partitions)
  return drafts as ReadonlyArray<NewRecord>
}

const again = (entry: CatalogTopic): string =>
  entry.topic.idOf === undefined && entry.topic.compacted !== true
    ? "send it again; it may then be in the log twice"
    : "send it again unchanged: if it is in the log already, it counts once"

const overloaded = (topic: string): Fault =>
  fault(
    "overloaded",
    `too many events of ${topic} are waiting to be appended`,
    "send it again after Retry-After seconds, with fewer at once"
  )

const notAttempted = (topic: string): Fault =>
  fault(
    "not_attempted",
    `earlier events of ${topic} in this request failed, and the order is kept`,
    "send it again after those"
  )

const storageFault = (entry: CatalogTopic, error: LogError | UnknownTopic): Fault => {
  if (error._tag === "UnknownTopic")
    return fault("topic_not_ready", error.message, "run 'millrace migrate', then send it again")
  if (!error.retryable)
    return fault("log_refused", error.message, "see the log of the server; the same event will fail again")
  return fault("log_unavailable", error.message, again(entry))
}
