// Runs `millrace tail view:NAME`: prints the rows of a view and then every change of them, as clients of the HTTP server get them.
import * as Effect from "effect/Effect"
import { parseToken } from "../log/position-token.ts"
import type { Connection, EndOfStream, StreamMessage } from "../server/connection/connection.ts"
import { changeOpener } from "../server/changes/opener.ts"
import { changeSource } from "../server/changes/source.ts"
import { defaultLimits } from "../server/http/limits.ts"
import { Problem } from "../server/http/problem.ts"
import { declaredViews } from "../server/views/catalog.ts"
import { viewReader } from "../server/views/reader.ts"
import { assertDatabaseExists, openDatabase, openQueries } from "../system/database.ts"
import { CommandFailed, usageError } from "./command-failure.ts"
import { loadApplication } from "./config.ts"
import { writeOut } from "./print.ts"
import { assertMax } from "./print-messages.ts"
import type { TailFlags } from "./tail-actions.ts"
import { terminalLine, terminalText } from "./terminal-text.ts"

/** What the name of a view follows where that of a topic could be. */
const viewPrefix = "view:"
const textOf = ({ data, event }: StreamMessage, view: string, json: boolean): string =>
  json
    ? terminalText(`{"view":${JSON.stringify(view)},"event":${JSON.stringify(event)},"data":${data}}`)
    : terminalLine(`${event}  ${data}`)

/** A connection to standard output: gone once the reader has closed it, or `most` rows and changes are printed. */
export const viewOutput = (view: string, json: boolean, most: number) => {
  let left = most
  let last: string | undefined
  let end: EndOfStream | undefined
  let written: Promise<boolean> = Promise.resolve(true)
  let gone: (() => void) | undefined
  const state = { isGone: false }
  const leave = () => {
    state.isGone = true
    gone?.()
  }
  const connection: Connection = {
    get isGone() {
      return state.isGone
    },
    onGone: (listener) => {
      gone = () => listener("client_gone")
    },
    position: (id) => void (last = id),
    send: (messages) => {
      const shown: Array<string> = []
      for (const message of messages) {
        if (left === 0) break
        last = message.id
        // what a client does with its rows: a person sees why they come again
        const isRow = message.event === "upsert" || message.event === "delete"
        if (!isRow && !json && message.event === "live") continue
        if (isRow) left--
        shown.push(`${textOf(message, view, json)}\n`)
      }
      written = written.then((isOpen) => isOpen && writeOut(shown.join(""), true))
      if (left === 0) leave()
      return false
    },
    // a terminal may be stopped for as long as the person likes
    drained: async () => {
      if (!(await written)) leave()
      return true
    },
    heartbeat: (id) => void (last = id ?? last),
    end: (why) => void (end = why)
  }
  return { connection, last: () => last, end: () => end, isDone: async () => !(await written) || state.isGone, leave }
}

/** The name of the view that flags name, and where it starts. Fails for flags that make no sense for a view. */
export const viewOf = Effect.fnUntraced(function* (flags: TailFlags) {
  const name = flags.topic.slice(viewPrefix.length)
  yield* assertMax(flags)
  for (const flag of ["key", "type", "partition"] as const)
    if (flags[flag] !== undefined)
      return yield* usageError(`--${flag} is for records of topics, and ${name} is a view`, "leave it out")
  const from = flags.from ?? "earliest"
  if (from !== "earliest" && from !== "latest" && parseToken(from) === undefined)
    return yield* usageError(
      `--from is '${from}'; of a view it must be earliest, latest or a token`,
      "--from earliest for all rows and then changes, --from latest for changes alone, --from TOKEN for rows that have what was written"
    )
  return { name, from }
})

/** Prints until interrupted, until `max` rows and changes are printed, or until the reader of the output has closed it. Returns the exit code. */
export const tailView = Effect.fnUntraced(function* (flags: TailFlags) {
  const { config, data, json, max = Infinity, tenant } = flags
  const { from, name } = yield* viewOf(flags)
  const application = yield* loadApplication(config)
  yield* assertDatabaseExists(data)
  const database = yield* openDatabase(data, "join", { max: 3 })
  const queries = yield* openQueries(database, defaultLimits.viewMs)
  const { follow, open } = changeOpener({
    application,
    limits: defaultLimits,
    views: declaredViews(application),
    reader: viewReader(queries, database.sql),
    source: changeSource(queries, database.sql)
  })
  const out = viewOutput(name, json, max)
  const follower = (last: string | undefined) =>
    Effect.tryPromise({
      try: async () => {
        const opened = await open({
          name,
          query: { from },
          last,
          principal: { name: "tail", tenant, isAnonymous: true },
          isGone: () => false
        })
        return follow(opened, out.connection)
      },
      catch: (cause) =>
        cause instanceof Problem ? new CommandFailed({ message: cause.message, try: cause.try }) : (cause as Error)
    })
  while (true) {
    const stream = yield* follower(out.last())
    yield* Effect.promise(() => stream.run()).pipe(Effect.onInterrupt(() => Effect.sync(out.leave)))
    if (yield* Effect.promise(out.isDone)) return 0
    const end = out.end()
    // the rows come again
    if (end?.reason !== "view_replaced" && end?.reason !== "changes_expired")
      return yield* new CommandFailed({
        message: end?.message ?? "the changes cannot be read",
        try: end?.try ?? "run it again"
      })
  }
})
