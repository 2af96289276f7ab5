// Inline projections of the event store in memory: their rows, which appends write by the engine's own code.
import * as Effect from "effect/Effect"
import { InlineFailed } from "../aggregate/errors.ts"
import { foldInline, type InlineAppend, prepareInline } from "../aggregate/inline.ts"
import { maxAheadOf } from "../model/event-times.ts"
import type { Projection } from "../model/projection.ts"
import type { Row } from "../model/recorder.ts"
import type { RowReader } from "../runner/needed-rows.ts"
import { MemoryStore } from "../runner/memory-store.ts"
import type { Claim } from "../runner/store.ts"

/** The rows of inline projections in memory. */
export class InlineRows {
  /** One store for each projection. */
  private readonly stores: ReadonlyMap<Projection.Any, MemoryStore>

  constructor(projections: ReadonlyArray<Projection.Any>) {
    this.stores = new Map(projections.map((projection) => [projection, new MemoryStore(projection)]))
  }

  /** How far in the future the events of an aggregate may be dated; undefined if no projection reads them. */
  maxAheadOf(aggregate: string): number | undefined {
    return maxAheadOf([...this.stores.keys()], aggregate)
  }

  /** The rows of a table or window. Throws an error if no inline projection writes it. */
  rows(name: string): ReadonlyArray<Row> {
    const store = [...this.stores.values()].find((one) => one.has(name))
    if (store === undefined) throw new Error(`no inline projection writes ${name}; list the projection that does`)
    return store.rows(name)
  }

  /** Writes the rows of appends before their events are stored: those of all projections, or none if some cannot be stored. */
  readonly write = Effect.fnUntraced(function* (
    this: InlineRows,
    appends: ReadonlyArray<InlineAppend>,
    now: number
  ): Effect.fn.Return<void, InlineFailed> {
    const [first] = appends
    if (first === undefined || this.stores.size === 0) return
    const refused = (projection: string) => (error: { readonly message: string }) =>
      new InlineFailed({ aggregate: first.aggregate, stream: first.stream, projection, reason: error.message })
    const prepared = prepareInline([...this.stores.keys()], appends, now)
    const reader: RowReader = {
      readRows: (projection, target, keys) => this.stores.get(projection)!.service.readRows(projection, target, keys)
    }
    const { changes, failed } = yield* foldInline(prepared, appends, reader).pipe(
      Effect.mapError(refused("of the aggregate"))
    )
    const [problem] = failed.values()
    if (problem !== undefined) return yield* problem
    const commits: Array<() => Claim> = []
    for (const { build, tables, windows } of changes) {
      const store = this.stores.get(build)!
      const claim = yield* store.service.claim(build, first.aggregate, 0, 1).pipe(Effect.mapError(refused(build.name)))
      const commit = yield* store
        .prepareCommit(claim, {
          position: claim.position + 1,
          fingerprint: undefined,
          streamTime: undefined,
          events: appends.reduce((sum, { records }) => sum + records.length, 0),
          duplicates: 0,
          tables,
          windows,
          segments: [],
          late: [],
          deadLetters: [],
          seen: undefined
        })
        .pipe(Effect.mapError(refused(build.name)))
      commits.push(commit)
    }
    for (const commit of commits) commit()
  })
}
