// Sends generated requests to a server of application.ts, and checks that no answer is a failure and that what was accepted, and nothing else, is in the log and in SQL once.
import * as Effect from "effect/Effect"
import { parseToken } from "../../src/log/position-token.ts"
import { query, type Sql } from "../../src/postgres/client/client.ts"
import { cleanerKey } from "../../src/postgres/log/group.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import type { Log } from "../../src/log/log.ts"
import { databaseOn } from "../support/postgres.ts"
import { exchange, KeptConnection, type RawAnswer, type RawResponse } from "./connection.ts"
import { type Document, type Operation, operationsOf, undescribed } from "./operations.ts"
import { type FuzzRequest, requestsOf } from "./requests.ts"
import { serverOn } from "./server.ts"

/** What to send. */
export interface FuzzOptions {
  readonly seed: number
  /** The first request's number. Default 0. */
  readonly from?: number
  readonly requests: number
  /** How many requests are under way at once. Default 40. */
  readonly atOnce?: number
  /** Called from time to time with how many requests were answered. */
  readonly onProgress?: (answered: number) => void
}
/** What is wrong, with the request that shows it. */
export interface Finding {
  readonly problem: string
  readonly request: number | undefined
  /** What was sent and answered, shortened. */
  readonly detail: string
}
/** What a run has seen. */
export interface FuzzReport {
  readonly requests: number
  readonly seconds: number
  readonly operations: number
  /** Responses by status. */
  readonly statuses: Readonly<Record<string, number>>
  /** Events and commands that were accepted. */
  readonly accepted: number
  /** Responses with 503 or 504, which say that a request may be sent again, by the request's name. */
  readonly busy: Readonly<Record<string, number>>
  /** Requests that were sent once more, since their connection ended without an answer. */
  readonly sentAgain: number
  /** Records of the log that requests stored whose client was gone before the answer. */
  readonly unanswered: number
  /** The longest stalls of the server's event loop with the requests that were under way, the longest first. Milliseconds. */
  readonly stalls: ReadonlyArray<{ readonly stallMs: number; readonly during: ReadonlyArray<string> }>
  readonly findings: ReadonlyArray<Finding>
}

const shownBytes = (bytes: Buffer): string => JSON.stringify(bytes.subarray(0, 1_500).toString("latin1"))
const shownAnswer = ({ isClosed, responses, rest }: RawAnswer): string => {
  const texts = responses.map(({ body, status }) => `${status} ${body.slice(0, 300)}`)
  return `${texts.join(" | ")}${rest === "" ? "" : ` rest ${rest.slice(0, 200)}`}${isClosed ? " closed" : ""}`
}

/** A position of the log. */
type Place = string
const placeOf = (topic: string, partition: number, position: number): Place => `${topic}/${partition}/${position}`

/** What the answers say is stored. */
class Acceptances {
  /** Positions that answers name. */
  readonly places = new Set<Place>()
  /** Events that answers count without their positions. */
  unnamed = 0
  readonly twice: Array<Place> = []

  /** Notes what a response says is stored. */
  note({ body }: RawResponse): void {
    if (!/^\{"(?:trace_id|version)"/.test(body)) return
    const answer = JSON.parse(body) as {
      readonly accepted?: number
      readonly results?: ReadonlyArray<{
        readonly status: string
        readonly topic: string
        readonly partition: number
        readonly position: number
      }>
      readonly events?: ReadonlyArray<unknown>
      readonly repeated?: boolean
      readonly token?: string
    }
    const named = answer.results?.filter((result) => result.status === "accepted") ?? []
    for (const { partition, position, topic } of named) this.#add(placeOf(topic, partition, position))
    if (answer.accepted !== undefined) this.unnamed += answer.accepted - named.length
    if (answer.repeated !== false || answer.token === undefined || answer.events?.length === 0) return
    // an account's command stores one event
    for (const { partition, position, topic } of parseToken(answer.token)!)
      this.#add(placeOf(topic, partition, position - 1))
  }
  #add(place: Place): void {
    if (this.places.has(place)) this.twice.push(place)
    this.places.add(place)
  }
}

/** How a refusal looks: a problem, the results of events, or, of the routes of health, what is not well. */
const form = /"error":\{"(?:index|code)"|"detail":|^\{"(?:healthy|ready)":false/

/** Problems of the answers to one request. */
const problemsOf = (request: FuzzRequest, answer: RawAnswer): ReadonlyArray<string> => {
  const { cutMs, isClean, methods, name, operation } = request
  const { isClosed, responses, rest } = answer
  const problems: Array<string> = []
  for (const [i, response] of responses.entries()) {
    const { body, status } = response
    // a response to HEAD has no body
    const hasNoBody = methods[0] === "HEAD" || methods[i] === "HEAD"
    if (status >= 500 && !(isBusy(response) && (!isClean || isDocumented(operation, response))))
      problems.push(`${name} was answered with ${status}`)
    if (status === 0) problems.push(`${name} was answered with what is no HTTP/1.1`)
    if (status >= 400 && !hasNoBody && !form.test(body))
      problems.push(`${name} was refused with ${status} in another form than a problem`)
  }
  if (cutMs !== undefined) return problems
  if (responses.length === 0 && !isClosed) problems.push(`${name} was not answered, and its connection stays open`)
  if (!isClean) return problems
  if (responses.length !== 1) problems.push(`${name} was answered ${responses.length} times`)
  // bytes that are no HTTP have no method, so the server's refusal of them has a body
  else if (rest !== "" && !isClosed && responses[0]!.headers.get("connection") !== "close")
    problems.push(`${name} was answered with more than one response`)
  return problems
}
/** Whether a response says that the request may be sent again: under load the server, or what it needs, is busy. */
const isBusy = ({ status }: RawResponse): boolean => status === 503 || status === 504
/** Whether the operation has the status. With Retry-After it is also of a route that the path leads to instead. */
const isDocumented = (operation: Operation | undefined, { headers, status }: RawResponse): boolean =>
  operation === undefined || operation.statuses.has(status) || headers.has("retry-after")

/** `mostMs` is far more than the server's own limits, so that a slow machine reaches it only if there is no answer. */
const times = { mostMs: 60_000, idleMs: 40 }
/** How long the projections may process nothing before they have the whole log. */
const stuckMs = 60_000
/** How many requests may be sent once more. */
const mostSentAgain = 20

interface Stored {
  readonly place: Place
  readonly id: string | undefined
  /** What duplicates share. */
  readonly identity: string
}
const identityOf = (partition: number, tenant: string | undefined, id: string | undefined): string =>
  JSON.stringify([partition, tenant ?? null, id])
/** Every record of a topic. */
const recordsOf = (log: Log["Service"], topic: string) =>
  Effect.gen(function* () {
    const found: Array<Stored> = []
    for (const { end, partition, start } of yield* log.bounds(topic))
      for (let position = start; position < end;) {
        const batch = yield* log.read(topic, partition, position)
        for (const { eventId: id, position: at, tenant } of batch.records)
          found.push({ place: placeOf(topic, partition, at), id, identity: identityOf(partition, tenant, id) })
        position = batch.next
      }
    return found
  })

/** Waits until the live builds have processed the log. */
const settled = Effect.fnUntraced(function* (sql: Sql, log: Log["Service"], topics: ReadonlyArray<string>) {
  const ends = new Map<string, number>()
  for (const topic of topics)
    for (const { end, partition } of yield* log.bounds(topic)) ends.set(`${topic}/${partition}`, end)
  for (let [until, last] = [Date.now() + stuckMs, ""]; ; yield* Effect.sleep(20)) {
    const rows = yield* query(
      "positions",
      () => sql<Array<{ place: string; position: number; halted: string | null }>>`
        select topic || '/' || partition as place, min(next_position)::int8 as position, min(halted) as halted
        from millrace.progress p
        where exists (select from millrace.live l where l.projection = p.projection and l.version = p.version)
        group by 1 order by 1`
    )
    const halted = rows.find((row) => row.halted !== null)
    if (halted !== undefined) return `${halted.place} is halted: ${halted.halted}`
    if (rows.every(({ place, position }) => position >= (ends.get(place) ?? 0))) return undefined
    const now = JSON.stringify(rows)
    if (now !== last) until = Date.now() + stuckMs
    else if (Date.now() > until) return `the projections process nothing: ${now}`
    last = now
  }
})

/** Compares the log and SQL with what was accepted. */
const compared = Effect.fnUntraced(function* (sql: Sql, acceptances: Acceptances, unreadTexts: ReadonlyArray<string>) {
  const { log } = yield* PostgresLog.make(sql)
  const findings: Array<Finding> = []
  const add = (problem: string, some: ReadonlyArray<string>): void => {
    if (some.length > 0)
      findings.push({ problem: `${some.length} ${problem}`, request: undefined, detail: some.slice(0, 5).join(", ") })
  }
  const failure = yield* settled(sql, log, ["orders", "account"])
  if (failure !== undefined) findings.push({ problem: failure, request: undefined, detail: "" })
  const [events, prices, commands] = [
    yield* recordsOf(log, "orders"),
    yield* recordsOf(log, "prices.v1"),
    yield* recordsOf(log, "account")
  ]
  const stored = new Map([...events, ...prices, ...commands].map(({ id, place }) => [place, id]))
  add("acceptances named a position that another one named", acceptances.twice)
  add(
    "accepted events are not in the log",
    [...acceptances.places].filter((place) => !stored.has(place))
  )
  const unanswered = [...stored].filter(([place]) => !acceptances.places.has(place))
  const unread = unreadTexts.join("\n")
  const known = unanswered.filter(
    ([place, id]) => !place.startsWith("orders/") || unread.includes(JSON.stringify(id).slice(1, -1))
  )
  if (unanswered.length - known.length > acceptances.unnamed)
    add(
      `records are in the log, of which ${acceptances.unnamed} were accepted without a position, and the others not`,
      unanswered.filter((one) => !known.includes(one)).map(([place, id]) => `${place} ${id}`)
    )
  if (unanswered.length < acceptances.unnamed)
    add("events fewer are in the log than were accepted", [String(acceptances.unnamed - unanswered.length)])
  add(
    "requests that were hidden in others were executed",
    [...stored.values()].flatMap((id) => (id?.startsWith("smuggled") === true ? [id] : []))
  )
  const ids = new Set(events.map(({ identity }) => identity))
  const rows = yield* query(
    "rows",
    () => sql<Array<{ id: string; tenant: string; partition: number; times: number }>>`
      select id, tenant, partition, times from seen_orders`
  )
  const dead = yield* query(
    "dead letters",
    () => sql<Array<{ place: string }>>`
      select topic || '/' || partition || '/' || position as place from millrace.dead_letters`
  )
  add(
    "dead letters",
    dead.map(({ place }) => place)
  )
  const inSql = Map.groupBy(rows, ({ id, partition, tenant }) => identityOf(partition, tenant, id))
  add(
    "events of the log are not in SQL",
    [...ids].filter((id) => !inSql.has(id))
  )
  add(
    "rows of SQL are of no event of the log",
    [...inSql.keys()].filter((id) => !ids.has(id))
  )
  add(
    "events are in SQL more than once",
    [...inSql].flatMap(([id, of]) => (of.length === 1 && of[0]!.times === 1 ? [] : [id]))
  )
  const accounts = yield* query(
    "accounts",
    () => sql<Array<{ place: string; times: number }>>`
      select 'account/' || partition || '/' || position as place, times from seen_accounts`
  )
  const accountRows = new Map(accounts.map(({ place, times: count }) => [place, count]))
  add(
    "events of accounts are not in SQL once",
    commands.flatMap(({ place }) => (accountRows.get(place) === 1 ? [] : [place]))
  )
  add(
    "rows of accounts are of no event",
    accounts.flatMap(({ place }) => (stored.has(place) ? [] : [place]))
  )
  return {
    findings,
    accepted: acceptances.places.size + acceptances.unnamed,
    unanswered: unanswered.length - acceptances.unnamed
  }
})

/** Sends requests to a new server on a new database, and checks what it answered and stored. */
export const fuzz = Effect.fnUntraced(function* (postgres: string, options: FuzzOptions) {
  const { atOnce = 40, from = 0, onProgress, requests, seed } = options
  const { sql, url } = yield* databaseOn(postgres, 4)
  const server = yield* serverOn(url)
  // compaction, which starts after a minute, would remove accepted values before they are compared: the cleaner leaves out a topic that another one cleans
  const cleaner = yield* Effect.acquireRelease(
    Effect.promise(() => sql.reserve()),
    (reserved) => Effect.sync(() => reserved.release())
  )
  yield* query(
    "keep all values",
    () => cleaner`select pg_advisory_lock(${cleanerKey}::int, topic_id::int) from millrace.log_topic where compacted`
  )
  const document = yield* Effect.promise(
    async () => (await (await fetch(`${server.url}/openapi.json`)).json()) as Document
  )
  const operations = [...operationsOf(document), ...undescribed]
  const acceptances = new Acceptances()
  /** The bodies of requests whose answer the client has not read. */
  const unreadTexts: Array<string> = []
  const findings: Array<Finding> = []
  const statuses: Record<string, number> = {}
  const stalls: Array<{ readonly stallMs: number; readonly during: ReadonlyArray<string> }> = []
  const busy: Record<string, number> = {}
  let sentAgain = 0
  const running = new Set<FuzzRequest>()
  const lately: Array<string> = []
  server.onStall((stallMs) => {
    stalls.push({
      stallMs: Math.round(stallMs),
      during: [...running].map(({ index, name }) => `${index} ${name}`).concat(lately)
    })
    stalls.sort((a, b) => b.stallMs - a.stallMs)
    stalls.length = Math.min(stalls.length, 20)
  })
  /** The answer to a request; the second one if its connection ended without the first, which leaves open whether it is stored. */
  const answerTo = async (connection: KeptConnection, { methods, parts, text }: FuzzRequest): Promise<RawAnswer> => {
    const first = await connection.send(parts[0]!, methods[0]!, times.mostMs)
    if (first.responses.length > 0 || !first.isClosed || sentAgain === mostSentAgain) return first
    sentAgain++
    unreadTexts.push(text)
    return connection.send(parts[0]!, methods[0]!, times.mostMs)
  }
  const one = async (connection: KeptConnection, request: FuzzRequest): Promise<void> => {
    const { cutMs, index, isClean, methods, parts } = request
    running.add(request)
    const answer = isClean
      ? await answerTo(connection, request)
      : await exchange(server.port, parts, methods, cutMs === undefined ? times : { mostMs: cutMs, idleMs: cutMs })
    running.delete(request)
    lately.push(`${index} ${request.name}`)
    if (lately.length > 10) lately.shift()
    for (const response of answer.responses) {
      statuses[response.status] = (statuses[response.status] ?? 0) + 1
      if (isBusy(response)) busy[request.name] = (busy[request.name] ?? 0) + 1
      acceptances.note(response)
    }
    // an answer that the client has not read to its end, and one that says that it may be stored
    // where bytes behind a request are no HTTP, Node answers these at once, and closes the connection before the request has its answer
    const isUnsure = answer.responses.some(({ body, status }) => status >= 500 || body.includes("is not HTTP/1.1"))
    if (answer.responses.length < methods.length || cutMs !== undefined || isUnsure) unreadTexts.push(request.text)
    for (const problem of problemsOf(request, answer)) {
      const detail = `${shownBytes(Buffer.concat(parts))} => ${shownAnswer(answer)}`
      if (findings.length < 50) findings.push({ problem, request: index, detail })
    }
  }
  const began = performance.now()
  const source = requestsOf(document, operations, seed, from)
  let sent = 0
  let answered = 0
  const worker = async (): Promise<void> => {
    const connection = new KeptConnection(server.port)
    while (sent < requests) {
      sent++
      await one(connection, source.next().value as FuzzRequest)
      if (++answered % 1_000 === 0) onProgress?.(answered)
    }
    connection.close()
  }
  yield* Effect.promise(() => Promise.all(Array.from({ length: atOnce }, worker)))
  const seconds = (performance.now() - began) / 1_000
  if (server.child.exitCode !== null)
    findings.push({ problem: `the server ended with ${server.child.exitCode}`, request: undefined, detail: "" })
  // what requests started whose client was gone may still change both while they are compared
  const first = yield* compared(sql, acceptances, unreadTexts)
  const found = first.findings.length === 0 ? first : yield* compared(sql, acceptances, unreadTexts)
  const report: FuzzReport = {
    requests,
    seconds,
    operations: operations.length,
    statuses,
    accepted: found.accepted,
    busy,
    sentAgain,
    unanswered: found.unanswered,
    stalls,
    findings: [...findings, ...found.findings]
  }
  return report
})
