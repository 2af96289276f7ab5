// Runs `millrace erase` and `millrace export`, beside the processes of the system or while none runs.
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { PostgresSubjectKeys } from "../postgres/store/subject-keys.ts"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { eraseSubject, type Erasure, previewErasure } from "../system/erasure.ts"
import { assertRegistered } from "../system/identity.ts"
import { openEventsOfCommand } from "../system/open-event-store.ts"
import { exportSubject as exported, type LeftOut, type SubjectEvent } from "../system/subject-export.ts"
import { CommandFailed, usageError } from "./command-failure.ts"
import { loadApplication } from "./config.ts"
import { print } from "./print.ts"
import { counted } from "../text/counted.ts"
import { shown } from "../text/text.ts"

/** What both commands are given. */
interface SubjectFlags {
  readonly data: string
  readonly config: string | undefined
  readonly subject: string
  readonly tenant: string | undefined
  readonly allTenants: boolean
}
/** The flags of `erase`. */
export interface EraseFlags extends SubjectFlags {
  readonly reason: string
  readonly readmit: boolean
  readonly dryRun: boolean
  readonly json: boolean
}

const open = Effect.fnUntraced(function* ({ allTenants, config, data, tenant }: SubjectFlags) {
  if (allTenants && tenant !== undefined)
    return yield* usageError("--tenant and --all-tenants exclude each other", "leave one of them out")
  const application = yield* loadApplication(config)
  yield* assertDatabaseExists(data)
  const { sql } = yield* openDatabase(data, "join", { max: 2 })
  yield* assertRegistered(application, sql)
  return { application, sql, ...(yield* openEventsOfCommand(application, sql)) }
})

/** Erases a subject's data, or lets new data of it be stored again, and prints what was done, or would be. */
export const erase = Effect.fnUntraced(function* (flags: EraseFlags) {
  const { dryRun, json, reason, subject } = flags
  if (dryRun && flags.readmit)
    return yield* usageError("--dry-run and --readmit exclude each other", "leave one of them out")
  const context = yield* open(flags)
  if (dryRun) {
    const erasure = yield* previewErasure(context, subject, flags)
    yield* print(json ? JSON.stringify({ dry_run: true, ...erasure }) : textOf(erasure, true))
    return 0
  }
  if (flags.readmit) return yield* readmit(context.subjectKeys, subject, json)
  const erasure = yield* eraseSubject(context, subject, reason, flags)
  yield* print(json ? JSON.stringify(erasure) : textOf(erasure))
  return 0
})
const readmit = Effect.fnUntraced(function* (keys: PostgresSubjectKeys, subject: string, json: boolean) {
  const readmitted = yield* keys.readmit(subject)
  const text = readmitted
    ? `new personal data of ${subject} is stored again`
    : `${subject} is not erased; nothing was changed`
  yield* print(json ? JSON.stringify({ subject, readmitted }) : text)
  return 0
})
const textOf = (erasure: Erasure, isDryRun = false): string => {
  const { aggregates, keys, snapshots, subject, tenants, unaware } = erasure
  const lines = [
    keys > 0
      ? `${isDryRun ? "would erase" : "erased"} the personal data of ${subject}`
      : `${subject} has no personal data that is not erased. What comes later is refused, until millrace erase ${subject} --readmit`,
    ...aggregates.map(
      ({ aggregate, streams }) => `  ${aggregate}: ${counted(streams, "stream")} with events about the subject`
    )
  ]
  if (tenants.some((tenant) => tenant !== null))
    lines.push(`  of ${tenants.map((tenant) => (tenant === null ? "no tenant" : `tenant ${tenant}`)).join(", ")}`)
  if (snapshots > 0) lines.push(`  ${counted(snapshots, "snapshot")} ${isDryRun ? "would be " : ""}deleted`)
  if (unaware.length > 0)
    lines.push(
      `these projections read personal data and do not handle subject.erased, so their rows ${isDryRun ? "would" : "may"} still have it: ${unaware.join(", ")}`,
      ...unaware.map(
        (name) =>
          `  next: millrace rebuild ${name}, then millrace promote ${name}, then millrace retire ${name} BUILD --drop for the build before`
      )
    )
  return lines.join("\n")
}

const eventLine = ({ aggregate, appendedAt, event, eventTime, stream, tenant, version }: SubjectEvent): string =>
  JSON.stringify({
    aggregate,
    stream,
    version,
    ...(tenant !== undefined && { tenant }),
    event_time: new Date(eventTime).toISOString(),
    appended_at: new Date(appendedAt).toISOString(),
    event
  })
const leftOutText = ({ aggregate, events, reason, stream }: LeftOut): string =>
  `  ${aggregate} ${shown(stream)}: ${events === undefined ? "all events" : counted(events, "event")}: ${reason}`
/**
 * Prints all events about a subject, one JSON object a line. What cannot be exported is named in a last line, and on standard error; then the
 * command fails.
 */
export const exportSubject = Effect.fnUntraced(function* (flags: SubjectFlags) {
  const context = yield* open(flags)
  const leftOut: Array<LeftOut> = []
  yield* exported(context, flags.subject, flags).pipe(
    Stream.runForEach((part) => {
      if (part._tag === "Event") return print(eventLine(part.event))
      return Effect.sync(() => void leftOut.push(part.leftOut))
    })
  )
  if (leftOut.length === 0) return 0
  yield* print(JSON.stringify({ partial: true, left_out: leftOut }))
  return yield* new CommandFailed({
    message: `the export is partial; events were left out of ${counted(leftOut.length, "stream")}:\n${leftOut.map(leftOutText).join("\n")}`,
    try: "correct the declarations, and run the command again"
  })
})
