// Malformed events from a seed: valid ones with a field, the envelope or the text itself made wrong, as foreign and hostile programs send them.
import type { Random } from "./random.ts"

/** A generated line, and the id of the event that it was made from. */
export interface MalformedLine {
  readonly id: string
  readonly bytes: Buffer
}

const texts: ReadonlyArray<string> = [
  '""',
  '"a\\u0000b"',
  '"\\ud800"',
  '"\\udc80x"',
  '"caf\\u00e9"',
  '"\\u001b[31m\\r\\n"',
  '" "',
  '"__proto__"',
  `"${"x".repeat(1_100)}"`,
  `"${"ż".repeat(600)}"`
]
const others: ReadonlyArray<string> = [
  '{"toString":1}',
  '{"valueOf":{"toString":[]}}',
  '{"toJSON":1,"then":1}',
  '{"length":-1,"0":"a"}',
  '{"__proto__":{"a":1}}',
  '{"constructor":{"prototype":{}}}',
  "[]",
  "[[]]",
  '["a","b"]',
  "{}",
  "null",
  "true",
  "0",
  "-0",
  "1.5",
  "-1",
  "1e99",
  "1e400",
  "-1e400",
  "2147483648",
  "9007199254740993",
  "123456789012345678901234567890",
  "1e-400",
  "NaN",
  "Infinity",
  "undefined",
  "",
  `${"[".repeat(70)}${"]".repeat(70)}`,
  `${'{"a":'.repeat(63)}1${"}".repeat(63)}`,
  "0x10",
  "01",
  '"2"'
]
const names = [
  "event_id",
  "entity_id",
  "amount",
  "occurred_at",
  "tenant",
  "type",
  "schema_version",
  "attributes",
  "more"
]
const types = ["transfer", "payment", "withdrawal", "refund", "flight.departed", "flight.cancelled"]

/** What is done to the text of a line as a whole. */
const damages: ReadonlyArray<(text: string, random: Random) => Buffer> = [
  (text, random) => Buffer.from(text.slice(0, random.int(1, text.length - 1))),
  (text) => Buffer.from(`${text}${text}`),
  (text) => Buffer.from(`${text} x`),
  (text) => Buffer.from(`[${text}]`),
  (text) => Buffer.from(`\ufeff${text}`),
  (text) => Buffer.from(JSON.stringify(text)),
  (text) => Buffer.from(text.replaceAll(",", " ,\t").replaceAll(":", " : ")),
  (text) => Buffer.from(text.replace('"tenant"', '"tenant":"other","tenant"')),
  (text) => Buffer.from(text.replace('"tenant"', '"tenan\\u0074" :"other","tenant"')),
  (text, random) => {
    const bytes = Buffer.from(text)
    bytes[random.int(0, bytes.length - 1)] = random.pick([0, 1, 13, 0x7f, 0x80, 0xc3, 0xed, 0xff])
    return bytes
  }
]

/** A line. About one in ten is valid. */
export const malformedLine = (random: Random, number: number): MalformedLine => {
  const id = `m-${number}`
  const fields = new Map([
    ["type", JSON.stringify(random.pick(types))],
    ["event_id", JSON.stringify(id)],
    ["entity_id", JSON.stringify(`e-${random.int(0, 20)}`)],
    ["amount", String(random.int(0, 1_000))],
    ["occurred_at", String(1_735_689_600_000 + number)],
    ["tenant", '"acme"']
  ])
  const changes = random.int(0, 2)
  for (let i = 0; i < changes; i++) {
    const name = random.pick(names)
    if (random.chance(0.1)) fields.delete(name)
    else fields.set(name, random.chance(0.3) ? random.pick(texts) : random.pick(others))
  }
  const text = `{${[...fields].map(([name, value]) => `"${name}":${value}`).join(",")}}`
  if (!random.chance(0.4)) return { id, bytes: Buffer.from(text) }
  const bytes = random.pick(damages)(text, random)
  // a line ends where the line feed is
  return { id, bytes: Buffer.from(bytes.map((byte) => (byte === 10 ? 32 : byte))) }
}
