// The reader of a topic that all its HTTP streams share: follows every partition, and keeps a limited number of recent records.
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type { PartitionBounds, Log, LogRecord, Position, ReadError } from "../../log/log.ts"

/** Records of one partition from a position on, and the position of the next ones. */
export interface RecordRange {
  readonly records: ReadonlyArray<LogRecord>
  readonly next: Position
}

interface Ring {
  records: Array<LogRecord>
  bytes: number
  /** `records` is complete from this position up to `next`. */
  from: Position
  next: Position
}

/** The most records that a stream gets at once. */
const stretch = 500

const sizeOf = (record: LogRecord): number => 200 + (record.value?.length ?? 0)

const again = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])

/** The newest records of a topic and its ends, as they arrive. */
export class Tail {
  /** The error that ended the tail, and ends its streams. Undefined while it runs. */
  failure: ReadError | undefined
  readonly #topic: string
  readonly #log: Log["Service"]
  readonly #rings: ReadonlyArray<Ring>
  readonly #bytes: number
  readonly #listeners = new Set<() => void>()
  readonly #fiber: Fiber.Fiber<void>

  /** Follows the topic from the ends in `bounds` until `stop`. `bytes` limits what is kept of all partitions together. */
  constructor(
    topic: string,
    log: Log["Service"],
    bounds: ReadonlyArray<PartitionBounds>,
    bytes: number,
    context: Context.Context<never>
  ) {
    this.#topic = topic
    this.#log = log
    this.#rings = bounds.map(({ end }) => ({ records: [], bytes: 0, from: end, next: end }))
    this.#bytes = bytes / Math.max(1, bounds.length)
    this.#fiber = Effect.runForkWith(context)(this.#follow())
  }

  get partitions(): number {
    return this.#rings.length
  }

  /** The end of a partition, as far as the tail has read it. */
  end(partition: number): Position {
    return this.#rings[partition]!.next
  }

  /** Records from a position on, if they are still kept; undefined: read them from the log. */
  recent(partition: number, position: Position): RecordRange | undefined {
    const ring = this.#rings[partition]!
    if (position < ring.from || position > ring.next) return undefined
    const first = firstFrom(ring.records, position)
    const records = ring.records.slice(first, first + stretch)
    const isAll = first + records.length === ring.records.length
    return { records, next: isAll ? ring.next : records.at(-1)!.position + 1 }
  }

  /** Calls `listener` whenever there are new records, and when the tail fails. Returns a function that stops it. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Stops the tail. Resolves when it has stopped. */
  stop(): Promise<void> {
    return Effect.runPromise(Effect.asVoid(Fiber.interrupt(this.#fiber)))
  }

  #follow(): Effect.Effect<void> {
    return Effect.forEach(this.#rings, (_, partition) => this.#partition(partition), {
      concurrency: "unbounded",
      discard: true
    }).pipe(
      Effect.catch((error) =>
        Effect.sync(() => {
          this.failure = error
          this.#notify()
        })
      )
    )
  }

  #partition(partition: number): Effect.Effect<never, ReadError> {
    const ring = this.#rings[partition]!
    const once = Effect.suspend(() => this.#log.open(this.#topic, partition, ring.next)).pipe(
      Effect.flatMap((reader) =>
        Effect.forever(Effect.map(reader.take, ({ next, records }) => this.#keep(ring, records, next)))
      ),
      Effect.scoped
    )
    return Effect.retry(once, { schedule: again, while: (error) => error._tag === "LogError" && error.retryable })
  }

  #keep(ring: Ring, records: ReadonlyArray<LogRecord>, next: Position): void {
    for (const record of records) {
      ring.records.push(record)
      ring.bytes += sizeOf(record)
    }
    ring.next = next
    let gone = 0
    while (ring.bytes > this.#bytes && gone < ring.records.length) ring.bytes -= sizeOf(ring.records[gone++]!)
    if (gone > 0) {
      ring.from = ring.records[gone - 1]!.position + 1
      ring.records = ring.records.slice(gone)
    }
    this.#notify()
  }

  #notify(): void {
    for (const listener of this.#listeners) listener()
  }
}

/** The index of the first record at or after a position. */
const firstFrom = (records: ReadonlyArray<LogRecord>, position: Position): number => {
  let low = 0
  let high = records.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (records[middle]!.position < position) low = middle + 1
    else high = middle
  }
  return low
}

interface Shared {
  readonly tail: Tail
  users: number
}

/** The tails of all topics. A tail starts with its first user and stops after its last. */
export class Tails {
  readonly #log: Log["Service"]
  readonly #bytes: number
  readonly #context: Context.Context<never>
  readonly #shared = new Map<string, Shared>()

  constructor(log: Log["Service"], bytes: number, context: Context.Context<never>) {
    this.#log = log
    this.#bytes = bytes
    this.#context = context
  }

  /** The tail of a topic. If there is none, or the last one failed, a new one starts at the ends in `bounds`. To be given back by `release`. */
  use(topic: string, bounds: ReadonlyArray<PartitionBounds>): { readonly tail: Tail; readonly release: () => void } {
    let shared = this.#shared.get(topic)
    if (shared === undefined || shared.tail.failure !== undefined) {
      shared = { tail: new Tail(topic, this.#log, bounds, this.#bytes, this.#context), users: 0 }
      this.#shared.set(topic, shared)
    }
    const used = shared
    used.users++
    let released = false
    return {
      tail: used.tail,
      release: () => {
        if (released || --used.users > 0) return
        released = true
        if (this.#shared.get(topic) === used) this.#shared.delete(topic)
        void used.tail.stop()
      }
    }
  }
}
