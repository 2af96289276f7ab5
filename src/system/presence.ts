// Lets the database know that this process runs and what it does, every few seconds: the status names what is missing by these rows.
import { randomUUID } from "node:crypto"
import { hostname } from "node:os"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import { OngoingFailures } from "../monitor/ongoing-failures.ts"
import type { Sql } from "../postgres/client/client.ts"
import { deleteProcess, writeProcess } from "../postgres/store/processes.ts"

/** How often the row is written, in milliseconds. */
const everyMs = 5_000
/** How long stopping may take to delete the row. If it does not succeed, the row is known as that of a process that died. */
const leaveMs = 1_000

/** What a process does, besides its roles. */
interface Duties {
  /** `<name>_v<version>` of the projections that it runs. */
  readonly projections?: ReadonlyArray<string>
  /** The targets of the relays that it runs. */
  readonly targets?: ReadonlyArray<string>
}

/** This process among those of a system. */
export class Presence {
  /** A UUID, which claims of partitions store. */
  readonly id: string = randomUUID()
  /** What this process tries again. */
  readonly failures = new OngoingFailures()
  /** `<name>_v<version>` of the projections that the process declares. */
  declares: ReadonlyArray<string> = []
  private readonly duties = new Map<string, Duties>()
  private readonly changed = Latch.makeUnsafe(false)
  private answeredAt = performance.now()

  /** How long ago the database answered last, in milliseconds; at first, since when this exists. */
  get silentMs(): number {
    return performance.now() - this.answeredAt
  }
  /** The roles that run now. */
  get roles(): ReadonlyArray<string> {
    return [...this.duties.keys()]
  }

  /** Runs an effect in a role: the process has the role for as long as it runs. */
  readonly during = <A, E, R>(role: string, duties: Duties, run: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.acquireUseRelease(
      Effect.sync(() => this.set(role, duties)),
      () => run,
      () => Effect.sync(() => this.set(role, undefined))
    )

  /** Changes what the process does in a role that it has. */
  change(role: string, duties: Duties): void {
    if (this.duties.has(role)) this.set(role, duties)
  }

  /** Adds a role that needs no loop, such as that of a gateway, until the scope closes. */
  readonly add = (role: string): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => this.set(role, {})),
      () => Effect.sync(() => this.set(role, undefined))
    )
  private set(role: string, duties: Duties | undefined): void {
    if (duties === undefined) this.duties.delete(role)
    else this.duties.set(role, duties)
    this.changed.openUnsafe()
  }

  /**
   * Writes the row whenever the roles change, and every few seconds. One statement is under way at most, so a database that hangs does not pile
   * them up. Ends with the scope, which deletes the row.
   */
  readonly announce = Effect.fnUntraced(function* (
    this: Presence,
    sql: Sql
  ): Effect.fn.Return<void, never, Scope.Scope> {
    let isKnown = false
    let writing: Fiber.Fiber<void> | undefined
    yield* Effect.addFinalizer(() =>
      Effect.gen({ self: this }, function* () {
        // a statement that was sent is not cancelled, and would write the row again
        if (writing !== undefined) yield* Fiber.await(writing)
        if (isKnown) yield* Effect.ignore(deleteProcess(sql, this.id))
      }).pipe(Effect.timeoutOption(leaveMs))
    )
    const write = Effect.suspend(() => {
      this.changed.closeUnsafe()
      // a process without a role, such as a command that only opens the system, is no part of what the status judges
      if (this.duties.size === 0 && !isKnown) return Effect.void
      isKnown = this.duties.size > 0
      const all = [...this.duties.values()]
      const written = isKnown
        ? writeProcess(sql, {
            id: this.id,
            host: hostname(),
            pid: process.pid,
            roles: this.roles,
            projections: all.flatMap(({ projections = [] }) => projections),
            declares: this.declares,
            targets: all.flatMap(({ targets = [] }) => targets),
            failing: this.failures.list
          })
        : deleteProcess(sql, this.id)
      return Effect.match(written, {
        onSuccess: () => {
          this.answeredAt = performance.now()
          this.failures.clear(database)
        },
        onFailure: (error) => this.failures.report(database, error.message, everyMs)
      })
    })
    const beat = Effect.gen(function* () {
      writing = yield* Effect.forkDetach(write)
      yield* Fiber.await(writing)
    })
    const next = Effect.raceFirst(this.changed.await, Effect.sleep(everyMs))
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(beat, next)))
  })
}

/** What failures of the database are noted as. */
export const database = "database"
