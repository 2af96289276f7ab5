// Runs `millrace sql`: one statement, which can only read unless `--write` is given, and prints its rows.
import * as Effect from "effect/Effect"
import { runStatement, type RowSink } from "../postgres/client/statement.ts"
import type { SqlError } from "../postgres/client/client.ts"
import { assertDatabaseExists, openDatabase, openReader } from "../system/database.ts"
import { CommandFailed, usageError } from "./command-failure.ts"
import { writeOut } from "./print.ts"
import { type RowFormat, type RowPrinter, rowPrinter } from "./rows.ts"

/** The flags and the argument of the command. */
export interface SqlFlags {
  readonly data: string
  readonly query: string
  readonly format: RowFormat
  readonly write: boolean
}

/** The first word of a statement in lower case, after comments and parentheses; empty if there is none. */
export const firstWord = (text: string): string => {
  let rest = text
  for (;;) {
    rest = rest.replace(/^[\s(;\u{FEFF}]+/u, "")
    if (rest.startsWith("--")) rest = rest.replace(/^[^\n\r]*/, "")
    else if (rest.startsWith("/*")) rest = afterComment(rest)
    else return /^[a-z_]+/i.exec(rest)?.[0].toLowerCase() ?? rest.slice(0, 1)
  }
}
/** What follows a comment; comments may hold comments. */
const afterComment = (text: string): string => {
  let depth = 0
  for (const { 0: mark, index } of text.matchAll(/\/\*|\*\//g)) {
    depth += mark === "/*" ? 1 : -1
    if (depth === 0) return text.slice(index + 2)
  }
  return ""
}

const reading = new Set(["select", "with", "values", "table", "show", "explain"])
const ofSessions = new Set([
  "begin",
  "start",
  "commit",
  "end",
  "rollback",
  "abort",
  "savepoint",
  "release",
  "set",
  "reset",
  "listen",
  "prepare",
  "declare",
  "fetch"
])
const psql = 'psql "$(npx millrace url)"'

/** What is wrong with a statement before it is sent; undefined if nothing is. */
export const refusalOf = (text: string, write: boolean): CommandFailed | undefined => {
  const word = firstWord(text)
  if (word === "") return usageError("the query is empty", 'millrace sql "select * from orders limit 5"')
  if (word === "copy")
    return usageError("millrace sql has no copy", `a select with --format csv or tsv; for copy, ${psql}`)
  if (reading.has(word)) return undefined
  if (ofSessions.has(word))
    return usageError(`'${word}' has no effect here: the command runs one statement and ends`, `${psql} for a session`)
  return write
    ? undefined
    : new CommandFailed({
        message: `'${word}' is no query, and without --write only queries run`,
        try: "add --write to change data"
      })
}

const hints: Readonly<Record<string, string>> = {
  "25006": "add --write to change data",
  "42501": "add --write to change data; what the application's role may not do either needs another role",
  "42P01": "millrace sql \"select table_name from information_schema.tables where table_schema = 'public'\""
}
const hintOf = (code: string | undefined, reason: string, write: boolean): string | undefined => {
  const [, schema] = /permission denied for schema (\S+)/.exec(reason) ?? []
  if (schema !== undefined)
    return `a role that may read it: grant usage on schema ${schema} to …; or the application's own, with --write`
  if (code === "42P01" && /"millrace\./.test(reason))
    return "millrace sql \"select table_name from information_schema.tables where table_schema = 'millrace'\""
  return code === undefined || (code === "42501" && write) ? undefined : hints[code]
}
const explained = ({ code, reason }: SqlError, write: boolean): CommandFailed => {
  if (code === "SUPERUSER") {
    return new CommandFailed({
      message: `${reason}, the role of this connection, could write files and run programs on the server even in a read-only transaction, so the query was not run`,
      try: "set MILLRACE_READER_URL to the URL of a role that only reads (create role millrace_reader login password '…'; grant pg_read_all_data to millrace_reader), or add --write"
    })
  }
  if (code === "42601" && reason.includes("multiple commands")) {
    return usageError("the query has several statements", `one statement for each millrace sql; for several, ${psql}`)
  }
  const hint = hintOf(code, reason, write)
  const message = hint === undefined ? reason : reason.replace(/\. try: .*$/s, "")
  return new CommandFailed({ message, ...(hint === undefined ? {} : { try: hint }) })
}

/** Runs one statement and prints its rows. Without `write` it can only read. */
export const sql = Effect.fnUntraced(function* ({ data, format, query, write }: SqlFlags) {
  const refused = refusalOf(query, write)
  if (refused !== undefined) return yield* refused
  yield* assertDatabaseExists(data)
  const options = { max: 1, asText: true }
  const connections = write ? (yield* openDatabase(data, "join", options)).sql : yield* openReader(data, options)
  let printer: RowPrinter | undefined
  let open = true
  const put = async (text: string) =>
    (open = open && (text === "" || (await writeOut(text, format === "csv" || format === "tsv"))))
  // a statement that fails before its first row prints nothing
  let before = ""
  const putNext = async (text: string) => {
    const first = before
    before = ""
    return put(first + text)
  }
  const sink: RowSink = {
    start: (columns) => {
      printer = rowPrinter(format, columns)
      before = printer.before
    },
    rows: (rows) => putNext(printer!.rows(rows))
  }
  const { command, count } = yield* runStatement(connections, query, { readOnly: !write, sink }).pipe(
    Effect.mapError((error) => explained(error, write))
  )
  const text = printer!.after(count)
  yield* Effect.promise(() => putNext(text === "" && format === "table" ? `${command} ${count}\n` : text))
  return 0
})
