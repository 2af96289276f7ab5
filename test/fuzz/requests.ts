// Generates requests over all operations of an OpenAPI document: from valid ones to bytes that are no HTTP. Each is repeated by its seed.
import { gzipSync } from "node:zlib"
import * as fc from "fast-check"
import { headersOf, hostileForms, type HostileInput } from "./hostile.ts"
import type { Document, Json, Operation } from "./operations.ts"
import { damaged, damages, jsonOf, newId, parameterOf, strange, strangeText } from "./values.ts"

/** A request to send. */
export interface FuzzRequest {
  /** Where it is among the requests of its seed. */
  readonly index: number
  /** What it is, for people. */
  readonly name: string
  /** Undefined if it is no request of an operation. */
  readonly operation: Operation | undefined
  /** The bytes, in the parts in which they are sent. */
  readonly parts: ReadonlyArray<Buffer>
  /** The text of the body. */
  readonly text: string
  /** The methods of the requests in the bytes. */
  readonly methods: ReadonlyArray<string>
  /** Whether it is exactly one HTTP request, which must get exactly one response. */
  readonly isClean: boolean
  /** After how long the client resets the connection, whatever it has been answered. Milliseconds. */
  readonly cutMs: number | undefined
}

const ids = (count: number, prefix: string): ReadonlyArray<string> =>
  Array.from({ length: count }, (_, i) => `${prefix}-${i}`)
const names: Readonly<Record<string, ReadonlyArray<string>>> = {
  topic: ["orders", "receipts.v1", "prices.v1", "account", "unknown"],
  name: ["counting", "ledger"],
  id: [...ids(20, "a"), "f-1-0"],
  file: [
    "app.js",
    "style.css",
    "lib/api.js",
    "vendor/preact.js",
    "json",
    "static/index.html",
    "../../package.json",
    "..%2f..%2fx"
  ],
  aggregate: ["account", "acount", "millrace-erasure"],
  rest: ["events", "commands", "commands/deposit", "x"]
}
const segmentOf = (name: string): fc.Arbitrary<string> => {
  const known = names[name] ?? ["x"]
  const encoded = strangeText.map((text) => encodeURIComponent(text.toWellFormed()))
  return fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...known) },
    { weight: 1, arbitrary: encoded },
    { weight: 1, arbitrary: strangeText }
  )
}

/** Headers that any request may have. */
const anyHeaders: ReadonlyArray<readonly [name: string, values: ReadonlyArray<string>]> = [
  ["Host", ["localhost", "attacker.example", "127.0.0.1:99999", "[::1]", "@", "localhost:80:80", "a b"]],
  ["Origin", ["https://attacker.example", "null", "http://localhost", "file://"]],
  ["Sec-Fetch-Site", ["cross-site", "same-origin", "none", "x"]],
  ["Authorization", ["Bearer mr_a_b", "Basic eDp5", "Bearer", "Bearer eyJhbGciOiJub25lIn0.e30.", "x"]],
  ["Accept", ["*/*", "text/html", "application/json;q=0", ",,,"]],
  ["Accept-Encoding", ["gzip", "br;q=1.0, gzip;q=0.8", "identity;q=0, *;q=0"]],
  ["Prefer", ["return=minimal", "return=representation", "x=", ";;;"]],
  ["Schema-Version", ["1", "2", "0", "-1", "1.0", "x"]],
  ["Traceparent", ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0-0-00", "ff", ""]],
  ["If-Match", ['"0"', '"1"', "*", "x", '"999999999999999999999"', 'W/"1"']],
  ["If-None-Match", ["*", '"1"', "x"]],
  ["Last-Event-ID", ["0.0.0.0", "9.9.9.9", "x", "-1", ""]],
  ["Expect", ["100-continue", "x"]],
  ["Range", ["bytes=0-1", "x"]],
  ["Forwarded", ["for=x;host=y"]],
  ["X-Forwarded-For", ["1.2.3.4", "x,,y"]],
  ["X-Forwarded-Host", ["attacker.example"]],
  ["X-HTTP-Method-Override", ["DELETE"]],
  ["Upgrade", ["h2c", "websocket", "x"]],
  ["Connection", ["close", "keep-alive", "Upgrade", "x", "Upgrade, HTTP2-Settings"]],
  ["Cookie", ["a=b; c", ";;;"]],
  ["Content-MD5", ["x"]],
  ["TE", ["trailers"]]
]
const anyHeader = fc
  .constantFrom(...anyHeaders)
  .chain(([name, values]) => fc.constantFrom(...values).map((value) => [name, value] as const))

const contentTypes = [
  "application/json",
  "application/json; charset=utf-8",
  "application/json; charset=utf-16",
  "application/x-ndjson",
  "application/jsonl",
  "text/plain",
  "multipart/form-data; boundary=x",
  "application/x-www-form-urlencoded",
  "application/json; charset=",
  "x",
  "application/json, text/plain",
  "",
  ";;;"
]

/** A body of bytes, with its headers. */
interface Body {
  readonly type: string
  readonly encoding: string | undefined
  readonly text: string
  readonly damage: number
  readonly at: number
  readonly packing: number
}
const bodyOf = (document: Document, operation: Operation): fc.Arbitrary<Body | undefined> => {
  if (operation.method !== "POST")
    return fc.oneof(
      { weight: 30, arbitrary: fc.constant(undefined) },
      { weight: 1, arbitrary: someBody(fc.oneof(strange)) }
    )
  const schema = operation.bodies.get("application/json") ?? {}
  const one = jsonOf(document, schema)
  if (!operation.bodies.has("application/x-ndjson")) return someBody(one)
  const [event] = (schema["anyOf"] ?? [schema]) as ReadonlyArray<Json>
  const events = fc.array(
    fc.oneof({ weight: 30, arbitrary: jsonOf(document, event) }, { weight: 1, arbitrary: strange }),
    {
      minLength: 1,
      maxLength: 12
    }
  )
  return fc.oneof(
    { weight: 3, arbitrary: someBody(jsonOf(document, event)) },
    { weight: 2, arbitrary: someBody(events.map((texts) => `[${texts.join(",")}]`)) },
    {
      weight: 3,
      arbitrary: someBody(
        events.map((texts) => texts.join("\n")),
        "application/x-ndjson"
      )
    }
  )
}
const someBody = (text: fc.Arbitrary<string>, type = "application/json"): fc.Arbitrary<Body> =>
  fc.record({
    type: fc.oneof(
      { weight: 20, arbitrary: fc.constant(type) },
      { weight: 1, arbitrary: fc.constantFrom(...contentTypes) }
    ),
    encoding: fc.oneof(
      { weight: 30, arbitrary: fc.constant(undefined) },
      {
        weight: 1,
        arbitrary: fc.constantFrom("gzip", "GZIP", "x-gzip", "identity", "br", "deflate", "zstd", "gzip, gzip", "x")
      }
    ),
    text,
    damage: fc.nat({ max: damages * 8 }),
    at: fc.nat({ max: 10_000 }),
    packing: fc.nat({ max: 40 })
  })

const bombs = new Map<number, Buffer>()
/** What a small body becomes when it is decompressed: 4 MB, or members of 1 MB. */
const bomb = (members: number): Buffer => {
  const made = bombs.get(members) ?? gzipSync(Buffer.alloc(members === 1 ? 4_000_000 : 1_000_000, " "))
  bombs.set(members, made)
  return Buffer.concat(Array.from({ length: members }, () => made))
}
/** The bytes of a body, with its encoding. */
const packed = (
  bytes: Buffer,
  { at, encoding, packing }: Body
): { readonly bytes: Buffer; readonly encoding?: string } => {
  if (packing < 4) return { bytes: gzipSync(bytes), encoding: "gzip" }
  if (packing === 4) return { bytes: gzipSync(bytes).subarray(0, -1 - (at % 10)), encoding: "gzip" }
  if (packing === 5) return { bytes: gzipSync(gzipSync(bytes)), encoding: "gzip" }
  if (packing === 6 && at % 20 === 0) return { bytes: bomb(1 + (at % 3)), encoding: "gzip" }
  return { bytes, ...(encoding !== undefined && { encoding }) }
}

interface Plan {
  readonly operation: Operation
  readonly method: string
  readonly segments: ReadonlyArray<string>
  readonly query: ReadonlyArray<readonly [name: string, value: string]>
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
  readonly body: Body | undefined
  readonly isRawQuery: boolean
  readonly form: number
  readonly input: number
  readonly cut: number
  readonly chunked: number
}

const otherMethods = ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "POST", "GET", "TRACE", "PROPFIND", "PURGE", "QUERY"]

const planOf = (document: Document, operation: Operation): fc.Arbitrary<Plan> => {
  const parameters = [...operation.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => segmentOf(name!))
  const some = <A>(of: ReadonlyArray<fc.Arbitrary<A>>): fc.Arbitrary<ReadonlyArray<A>> =>
    of.length === 0 ? fc.constant([]) : fc.array(fc.oneof(...of), { maxLength: 3 })
  const query = operation.query.map(({ name, schema }) =>
    parameterOf(document, name, schema).map((value) => [name, value] as const)
  )
  const unknown = fc.tuple(strangeText, strangeText).map(([name, value]) => [name, value] as const)
  const headers = operation.headers.map(({ name, schema }) =>
    parameterOf(document, name, schema).map((value) => [name, value] as const)
  )
  return fc.record({
    operation: fc.constant(operation),
    method: fc.oneof(
      { weight: 30, arbitrary: fc.constant(operation.method) },
      { weight: 1, arbitrary: fc.constantFrom(...otherMethods) }
    ),
    segments: fc.tuple(...parameters),
    query: fc.oneof(
      { weight: 3, arbitrary: fc.constant([]) },
      { weight: 6, arbitrary: some(query) },
      { weight: 1, arbitrary: some([...query, unknown]) }
    ),
    headers: fc.oneof(
      { weight: 6, arbitrary: fc.constant([]) },
      { weight: 3, arbitrary: some(headers) },
      { weight: 1, arbitrary: some([anyHeader]) }
    ),
    body: bodyOf(document, operation),
    isRawQuery: fc.nat({ max: 9 }).map((one) => one === 0),
    form: fc.nat({ max: hostileForms.length * 8 }),
    input: fc.nat({ max: 100_000 }),
    cut: fc.nat({ max: 60 }),
    chunked: fc.nat({ max: 15 })
  })
}

/** A value without what ends a header or a request line. */
const inLine = (text: string): string =>
  text.replaceAll("\r", "").replaceAll("\n", "").replaceAll("\0", "").toWellFormed()
const inTarget = (text: string): string =>
  [...inLine(text)]
    .map((character) => (character > "~" ? encodeURIComponent(character) : character <= " " ? "+" : character))
    .join("")

const targetOf = ({ isRawQuery, operation, query, segments }: Plan): string => {
  let at = 0
  const path = operation.path.replaceAll(/\{\w+\}/g, () => inTarget(segments[at++]!))
  const encode = isRawQuery ? inTarget : (text: string) => encodeURIComponent(text.toWellFormed())
  const pairs = query.map(([name, value]) => `${encode(name)}=${encode(value)}`)
  return pairs.length === 0 ? path : `${path}?${pairs.join("&")}`
}

const build = (plan: Plan, index: number): FuzzRequest => {
  let count = 0
  const { body } = plan
  const plain = Buffer.from(body?.text.replaceAll(newId, () => `f-${index}-${count++}`) ?? "")
  const bare = body !== undefined && body.damage < damages ? damaged(plain, body.damage, body.at) : plain
  const sent = body && packed(bare, body)
  const text = bare.toString()
  const isChunked = plan.chunked === 0 && sent !== undefined
  const usualHeaders: Array<readonly [string, string]> = [
    ["Host", "localhost"],
    ...(body === undefined ? [] : [["Content-Type", body.type] as const]),
    ...(sent?.encoding === undefined ? [] : [["Content-Encoding", sent.encoding] as const])
  ]
  const given = plan.headers.map(([name, value]) => [name, inLine(value)] as const)
  const isGiven = (name: string) => given.some(([one]) => one.toLowerCase() === name.toLowerCase())
  const headers = [...usualHeaders.filter(([name]) => !isGiven(name)), ...given]
  const input: HostileInput = {
    index,
    method: plan.method,
    target: targetOf(plan),
    headers,
    body: sent?.bytes ?? Buffer.alloc(0),
    number: plan.input
  }
  const form = hostileForms[plan.form]
  if (form !== undefined) {
    const { methods, name, parts } = form(input)
    const cutMs = plan.cut < 4 ? plan.cut * 3 : undefined
    return { index, name, operation: plan.operation, parts, text, methods, isClean: false, cutMs }
  }
  const framing = isChunked
    ? [["Transfer-Encoding", "chunked"] as const]
    : sent === undefined
      ? []
      : [["Content-Length", String(sent.bytes.length)] as const]
  const chunks = isChunked ? chunksOf(sent.bytes, plan.input) : (sent?.bytes ?? Buffer.alloc(0))
  const bytes = Buffer.concat([headersOf(plan.method, input.target, [...headers, ...framing]), chunks])
  const cutMs = plan.cut === 0 ? plan.input % 12 : undefined
  return {
    index,
    name: `${plan.method} ${plan.operation.path}`,
    operation: plan.operation,
    parts: [bytes],
    text,
    methods: [plan.method],
    isClean: cutMs === undefined,
    cutMs
  }
}

const chunksOf = (bytes: Buffer, number: number): Buffer => {
  const size = 1 + (number % 200)
  const chunks: Array<Buffer> = []
  for (let at = 0; at < bytes.length; at += size) {
    const chunk = bytes.subarray(at, at + size)
    chunks.push(Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from("\r\n"))
  }
  return Buffer.concat([...chunks, Buffer.from("0\r\n\r\n")])
}

/** How many requests are generated at once. */
const batch = 100
/** The requests of a seed, without an end. */
export function* requestsOf(
  document: Document,
  operations: ReadonlyArray<Operation>,
  seed: number,
  from = 0
): Generator<FuzzRequest> {
  const plans = operations.map((operation) => {
    // what stores events is asked more often than the routes of operations, which keep the database busy
    const weight =
      operation.path === "/v1/events"
        ? 40
        : operation.path.includes("/commands/")
          ? 14
          : operation.path.startsWith("/v1/operations/")
            ? 2
            : 4
    return { weight, arbitrary: planOf(document, operation) }
  })
  const any = fc.oneof(...plans)
  for (let index = from - (from % batch); ; index += batch) {
    // numbers of batches are apart, so that seeds next to each other have other requests
    const some = fc.sample(any, { seed: (seed + index * 7_919) | 0, numRuns: batch })
    for (const [i, plan] of some.entries()) if (index + i >= from) yield build(plan, index + i)
  }
}
