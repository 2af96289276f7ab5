// Decides by the processes that take commands whether appends can write the rows of inline builds. Where none of them has a build's code, the build
// is released: it is async until one has the code. A process without the code refuses commands while another one has it, and reports that.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { InlineMissing } from "../aggregate/errors.ts"
import { aggregatesOf, type Application } from "../model/application.ts"
import { buildName, declaredVersion } from "../model/build.ts"
import { commandsSubject } from "../monitor/ongoing-failures.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import {
  type InlineBuild,
  readInlineBuilds,
  readInlineWishes,
  type InlineWish,
  storeReleased
} from "../postgres/store/lifecycles.ts"
import { besideRole, type ProcessRow, readProcesses } from "../postgres/store/processes.ts"
import { isAlive } from "./findings.ts"
import { Presence } from "./presence.ts"

/** How often the database is asked, in milliseconds. */
const everyMs = 1_000
/** The roles of processes that take commands: those of a system, and programs beside it. */
const takesCommands = ["gateway", besideRole]

/** The first inline projection of each aggregate that an application does not declare. Pure: no I/O. */
export const missingInline = (
  application: Pick<Application.Any, "projections">,
  aggregates: ReadonlyArray<string>,
  builds: ReadonlyArray<InlineBuild>
): ReadonlyArray<InlineMissing> =>
  aggregates.flatMap((aggregate) => {
    const missing = builds.find(
      (build) => build.aggregate === aggregate && declaredVersion(application, build.name, build.declared) === undefined
    )
    return missing === undefined
      ? []
      : [new InlineMissing({ aggregate, projection: missing.name, version: missing.declared })]
  })

/** This process, among those that the database has. */
interface ThisProcess {
  readonly id: string
  readonly roles: ReadonlyArray<string>
  /** `<name>_v<version>` of the projections that it declares. */
  readonly declares: ReadonlyArray<string>
}
const isTaker = (roles: ReadonlyArray<string>): boolean => takesCommands.some((role) => roles.includes(role))
/**
 * The builds that are to be released, or no longer. One is released if no process that takes commands has its code. A process that has no role yet, or
 * is a command, decides as one that takes commands if there is no other. Pure: no I/O.
 */
export const changedReleases = (
  wishes: ReadonlyArray<InlineWish>,
  processes: ReadonlyArray<ProcessRow>,
  self: ThisProcess
): ReadonlyArray<InlineWish> => {
  const others = processes.filter((one) => one.id !== self.id && isAlive(one) && isTaker(one.roles))
  const isOne = isTaker(self.roles) || (self.roles.length === 0 && others.length === 0)
  const taking = isOne ? [...others, self] : others
  if (taking.length === 0) return []
  return wishes.flatMap((wish) => {
    const released = !taking.some(({ declares }) => declares.includes(`${wish.name}_v${wish.declared}`))
    return released === wish.released ? [] : [{ ...wish, released }]
  })
}

/** Releases the inline builds whose code no process that takes commands has, and ends that where one has it. */
export const settleReleases = Effect.fnUntraced(function* (
  sql: Sql,
  { declares, id, roles }: Pick<Presence, "declares" | "id" | "roles">
): Effect.fn.Return<void, SqlError> {
  const wishes = yield* readInlineWishes(sql)
  if (wishes.length === 0) return
  for (const wish of changedReleases(wishes, yield* readProcesses(sql), { declares, id, roles })) {
    const isChanged = yield* storeReleased(sql, wish)
    if (!isChanged) continue
    const what = `projection ${wish.name}: the code of version ${wish.declared}, which writes its rows with the events,`
    yield* wish.released
      ? Effect.logWarning(
          `${what} is in no process that takes commands. Commands go on, and its rows follow behind the log where a process runs it`
        )
      : Effect.logInfo(`${what} is in a process that takes commands again`)
  }
})

/**
 * Settles, every second until the scope closes, which inline builds are released, and reports the aggregates whose commands this process has to
 * refuse: its readiness and the status say so before a client meets it.
 */
export const watchInlineCode = Effect.fnUntraced(function* (
  application: Application.Any,
  sql: Sql,
  presence: Presence
): Effect.fn.Return<void, never, Scope.Scope> {
  const aggregates = aggregatesOf(application).map(({ name }) => name)
  if (aggregates.length === 0) return
  const { failures } = presence
  // a database that does not answer is a failure of its own
  const look = Effect.ignore(
    Effect.gen(function* () {
      yield* settleReleases(sql, presence)
      const missing = missingInline(application, aggregates, yield* readInlineBuilds(sql))
      for (const aggregate of aggregates) {
        const error = missing.find((one) => one.aggregate === aggregate)
        if (error === undefined) failures.clear(commandsSubject(aggregate))
        else failures.report(commandsSubject(aggregate), error.message, everyMs)
      }
    })
  )
  yield* look
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(everyMs), look)))
})

/**
 * Counts this process, a program beside a system that sends commands of an application, among those that take commands, until the scope closes: the
 * inline builds whose code it has are not released, or no longer.
 */
export const takeCommandsBeside = Effect.fnUntraced(function* (
  application: Application.Any,
  sql: Sql
): Effect.fn.Return<void, never, Scope.Scope> {
  if (aggregatesOf(application).length === 0) return
  const presence = new Presence()
  presence.declares = application.projections.map(({ projection }) => buildName(projection))
  yield* presence.announce(sql)
  yield* presence.add(besideRole)
  yield* watchInlineCode(application, sql, presence)
})
