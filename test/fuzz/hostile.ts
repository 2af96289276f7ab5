// Requests that no client library sends: false lengths, two framings, broken chunks, other versions, pipelines, and bytes that are no HTTP. Pure.

/** A request that would be valid. */
export interface HostileInput {
  readonly index: number
  readonly method: string
  readonly target: string
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
  readonly body: Buffer
  /** Chooses among the variants of a form. */
  readonly number: number
}
/** What is sent instead. */
export interface HostileBytes {
  readonly name: string
  readonly parts: ReadonlyArray<Buffer>
  readonly methods: ReadonlyArray<string>
}
type HostileForm = (input: HostileInput) => HostileBytes

type Headers = HostileInput["headers"]
/** The head of a request. */
export const headersOf = (method: string, target: string, headers: Headers, version = "HTTP/1.1"): Buffer =>
  Buffer.from(
    `${method} ${target} ${version}\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`
  )
const whole = ({ body, headers, method, target }: HostileInput): Buffer =>
  Buffer.concat([headersOf(method, target, [...headers, ["Content-Length", String(body.length)]]), body])

/** A request that is hidden in the body of another one. Its event must never be in the log. */
const hidden = (index: number): Buffer => {
  const event = {
    type: "placed",
    id: `smuggled-${index}`,
    customer: "c-1",
    tenant: "acme",
    cents: 1,
    at: 1_767_225_600_000
  }
  // on several lines, so that it is no event in a body of lines
  const body = JSON.stringify(event, null, 1)
  return Buffer.from(
    `POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`
  )
}

const pick = <A>(values: ReadonlyArray<A>, { number }: HostileInput): A => values[number % values.length]!
const one = (name: string, input: HostileInput, ...parts: ReadonlyArray<Buffer>): HostileBytes => ({
  name,
  parts,
  methods: [input.method]
})
/** With headers beside those of the input, and other bytes as the body. */
const framed = (name: string, input: HostileInput, framing: Headers, body: Buffer): HostileBytes =>
  one(name, input, Buffer.concat([headersOf(input.method, input.target, [...input.headers, ...framing]), body]))

const length = (input: HostileInput): HostileBytes => {
  const right = String(input.body.length)
  const values = [
    "-1",
    "+5",
    "0x10",
    "1e3",
    `${right}, ${right}`,
    `${right} ${right}`,
    "18446744073709551616",
    "x",
    "",
    "9".repeat(40),
    ` ${right}`,
    "١"
  ]
  const value = pick(values, input)
  return framed(`Content-Length: ${value}`, input, [["Content-Length", value]], input.body)
}
const twoLengths = (input: HostileInput): HostileBytes => {
  const inner = hidden(input.index)
  const first = String(pick([0, input.body.length, 3], input))
  const all = Buffer.concat([input.body, inner])
  return framed(
    "two lengths",
    input,
    [
      ["Content-Length", first],
      ["Content-Length", String(all.length)]
    ],
    all
  )
}
const lengthAndChunks = (input: HostileInput): HostileBytes => {
  const inner = hidden(input.index)
  const chunks = Buffer.concat([Buffer.from("0\r\n\r\n"), inner])
  const framing: Headers = [
    ["Content-Length", String(chunks.length)],
    ["Transfer-Encoding", "chunked"]
  ]
  return framed("length and chunks", input, pick([framing, framing.toReversed()], input), chunks)
}
const transferEncoding = (input: HostileInput): HostileBytes => {
  const values = [
    "xchunked",
    "chunked, identity",
    "identity",
    "chunked, chunked",
    "chunked;q=1",
    "\tchunked",
    "gzip, chunked",
    "chunked\u000b",
    "Chunked ",
    '"chunked"'
  ]
  const value = pick(values, input)
  const names = [
    "Transfer-Encoding",
    "Transfer-Encoding ",
    "transfer_encoding",
    " Transfer-Encoding",
    "Transfer-Encoding\u0000"
  ]
  const name = names[input.number % 37 === 0 ? 1 + (input.number % 4) : 0]!
  const body = Buffer.concat([Buffer.from("0\r\n\r\n"), hidden(input.index)])
  // with two framings; with one, the hidden request would be the next one of a pipeline
  return framed(
    `${name}: ${value}`,
    input,
    [
      ["Content-Length", String(body.length)],
      [name, value]
    ],
    body
  )
}
const chunks = (input: HostileInput): HostileBytes => {
  const text = input.body.toString("latin1")
  const size = input.body.length.toString(16)
  const bodies = [
    `zz\r\n${text}\r\n0\r\n\r\n`,
    `-1\r\n${text}\r\n0\r\n\r\n`,
    `FFFFFFFFFFFFFFFFF\r\n${text}\r\n0\r\n\r\n`,
    `${size}\r\n${text}`,
    `${size}\r\n${text}0\r\n\r\n`,
    `${size}\n${text}\n0\n\n`,
    `${size};a=${"x".repeat(20_000)}\r\n${text}\r\n0\r\n\r\n`,
    `${size}\r\n${text}\r\n0\r\nTrailer: x\r\nContent-Length: 5\r\n\r\n`,
    `${size} \r\n${text}\r\n0\r\n\r\n`,
    `0x${size}\r\n${text}\r\n0\r\n\r\n`,
    `${size}\r\n${text}\r\n0\r\n`,
    `0${size}\r\n${text}\r\n00\r\n\r\n`,
    "\r\n\r\n"
  ]
  const i = input.number % bodies.length
  return framed(`chunks ${i}`, input, [["Transfer-Encoding", "chunked"]], Buffer.from(bodies[i]!, "latin1"))
}
const lineEnds = (input: HostileInput): HostileBytes => {
  const head = headersOf(input.method, input.target, [
    ...input.headers,
    ["Content-Length", String(input.body.length)]
  ]).toString()
  const [end, name] = pick(
    [
      ["\n", "bare LF"],
      ["\r", "bare CR"],
      ["\r\r\n", "CR CR LF"],
      ["\n\r", "LF CR"]
    ] as const,
    input
  )
  return one(name, input, Buffer.concat([Buffer.from(head.replaceAll("\r\n", end)), input.body]))
}
const headers = (input: HostileInput): HostileBytes => {
  const lines = [
    "X-Folded: a\r\n b: c",
    "no colon",
    "name with space: x",
    "X-Nul: a\0b",
    "X-Bytes: \u00ff\u00fe",
    ": no name",
    `X-Long: ${"x".repeat(20_000)}`,
    Array.from({ length: 3_000 }, (_, i) => `x${i}: 1`).join("\r\n"),
    `Host: localhost\r\nHost: attacker.example`,
    "\u007f: x",
    "Content-Type: application/json\r\nContent-Type: text/plain",
    "X\r\nY: z",
    "(x): y",
    "Connection: keep-alive, Content-Length, Host",
    "Expect: 100-continue\r\nExpect: x",
    ""
  ]
  const i = input.number % lines.length
  const head = `${input.method} ${input.target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${input.body.length}\r\n${lines[i]}\r\n\r\n`
  return one(`header ${i}`, input, Buffer.concat([Buffer.from(head, "latin1"), input.body]))
}
const requestLine = (input: HostileInput): HostileBytes => {
  const { method, target } = input
  const lines = [
    `${method}  ${target} HTTP/1.1`,
    `${method}\t${target} HTTP/1.1`,
    `${method} HTTP/1.1`,
    `${method} ${target}`,
    `${method} ${target} HTTP/1.1 x`,
    `${method} http://attacker.example${target} HTTP/1.1`,
    `${method} * HTTP/1.1`,
    `${method} ${target}#x HTTP/1.1`,
    `${method} ${target}\u00ff\u0080 HTTP/1.1`,
    `${method} //attacker.example${target} HTTP/1.1`,
    `${method} ${target}?${"x".repeat(20_000)} HTTP/1.1`,
    `${method} ${target}/${"../".repeat(400)} HTTP/1.1`,
    ` ${method} ${target} HTTP/1.1`,
    `${method} ${target}\0 HTTP/1.1`,
    `GETT ${target} HTTP/1.1`,
    `${method.toLowerCase()} ${target} HTTP/1.1`,
    `CONNECT attacker.example:443 HTTP/1.1`,
    `CONNECT ${target} HTTP/1.1`,
    `${"M".repeat(9_000)} ${target} HTTP/1.1`,
    `${method} ?${target} HTTP/1.1`,
    `${method} \\${target} HTTP/1.1`
  ]
  const i = input.number % lines.length
  const head = `${lines[i]}\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${input.body.length}\r\n\r\n`
  return one(`request line ${i}`, input, Buffer.concat([Buffer.from(head, "latin1"), input.body]))
}
const hosts = (input: HostileInput): HostileBytes => {
  const { body, method, target } = input
  const heads = [
    `${method} ${target} HTTP/1.1`,
    `${method} http://localhost${target} HTTP/1.1`,
    `${method} http://attacker.example${target} HTTP/1.1\r\nHost: localhost`,
    `${method} http://localhost@attacker.example${target} HTTP/1.1\r\nHost: localhost`,
    `${method} https://localhost${target} HTTP/1.1\r\nHost: localhost`,
    `${method} ${target} HTTP/1.1\r\nHost:`,
    `${method} ${target} HTTP/1.1\r\nHost: localhost\r\nHost: localhost`,
    `${method} ${target} HTTP/1.1\r\nHost: attacker.example`
  ]
  const i = input.number % heads.length
  const head = `${heads[i]}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`
  return one(`host ${i}`, input, Buffer.concat([Buffer.from(head, "latin1"), body]))
}
const versions = (input: HostileInput): HostileBytes => {
  const version = pick(
    [
      "HTTP/1.0",
      "HTTP/1.2",
      "HTTP/0.9",
      "HTTP/2.0",
      "HTTP/3",
      "http/1.1",
      "HTTP/11",
      "HTTP/1.",
      "HTPP/1.1",
      "HTTP/-1.1",
      "ICE/1.0"
    ],
    input
  )
  const head = headersOf(
    input.method,
    input.target,
    [...input.headers, ["Content-Length", String(input.body.length)]],
    version
  )
  return one(version, input, Buffer.concat([head, input.body]))
}
const noHttp = (input: HostileInput): HostileBytes => {
  const bytes = [
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1"),
    Buffer.from("1603010200010001fc0303", "hex"),
    Buffer.from("SSH-2.0-OpenSSH_9.6\r\n"),
    Buffer.from("\0".repeat(100)),
    Buffer.from("GET /\r\n\r\n"),
    Buffer.from("HELO x\r\n"),
    Buffer.from(Array.from({ length: 500 }, (_, i) => (input.number * (i + 7)) % 256)),
    Buffer.from("\r\n\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    Buffer.from("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n")
  ]
  const i = input.number % bytes.length
  return { name: `no HTTP ${i}`, parts: [bytes[i]!], methods: ["GET"] }
}
const pipeline = (input: HostileInput): HostileBytes => {
  const count = 2 + (input.number % 5)
  const health = Buffer.from("GET /v1/topics HTTP/1.1\r\nHost: localhost\r\n\r\n")
  const all = Array.from({ length: count }, (_, i) => (i === input.number % count ? whole(input) : health))
  return {
    name: "pipeline",
    parts: [Buffer.concat(all)],
    methods: all.map((bytes) => (bytes === health ? "GET" : input.method))
  }
}
const shortBody = (input: HostileInput): HostileBytes =>
  framed(
    "a body that is not complete",
    input,
    [["Content-Length", String(input.body.length + 1 + (input.number % 50))]],
    input.body
  )
const longBody = (input: HostileInput): HostileBytes =>
  framed("a body that goes on", input, [["Content-Length", String(Math.floor(input.body.length / 2))]], input.body)
const noLength = (input: HostileInput): HostileBytes => framed("a body without a length", input, [], input.body)
const split = (input: HostileInput): HostileBytes => {
  const bytes = whole(input)
  const at = 1 + (input.number % Math.max(1, bytes.length - 1))
  return one("in parts", input, bytes.subarray(0, at), bytes.subarray(at, at + 1), bytes.subarray(at + 1))
}
const frames = (input: HostileInput): HostileBytes => {
  const path = pick(
    [
      "/v1/topics/orders/stream",
      "/v1/topics/receipts.v1/stream?from=earliest",
      "/v1/topics/x/stream",
      "/v1/topics",
      "/v1/topics/%ff/stream",
      "/v1/views/seen_orders/changes",
      "/v1/views/revenue/changes?from=latest",
      "/v1/views/seen_accounts/changes?times.gte=1",
      "/v1/views/dear_orders/changes",
      "/"
    ],
    input
  )
  const head = `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: ${pick(["13", "13", "13", "8", "x"], input)}\r\nSec-WebSocket-Key: ${pick(["dGhlIHNhbXBsZSBub25jZQ==", "x", "dGhlIHNhbXBsZSBub25jZQ=="], input)}\r\n\r\n`
  const frame = [
    [0x81, 0x05, 1, 2, 3, 4, 5],
    [0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    [0xf1, 0x80, 0, 0, 0, 0],
    [0x8f, 0x80, 0, 0, 0, 0],
    [0x09, 0x80, 0, 0, 0, 0],
    [0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff],
    [0x88, 0x81, 0, 0, 0, 0, 1],
    [0x00, 0x80, 0, 0, 0, 0]
  ]
  return { name: "a WebSocket", parts: [Buffer.from(head), Buffer.from(pick(frame, input))], methods: ["GET"] }
}

/** The forms, each of which has variants. */
export const hostileForms: ReadonlyArray<HostileForm> = [
  length,
  twoLengths,
  lengthAndChunks,
  transferEncoding,
  chunks,
  lineEnds,
  headers,
  requestLine,
  hosts,
  versions,
  noHttp,
  pipeline,
  shortBody,
  longBody,
  noLength,
  split,
  frames
]
