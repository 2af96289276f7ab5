// Generates the input of the harness: events about entities, each of which depends on the seed and its number only.
//
// Amounts and weights are multiples of 1/4, so that sums of scores are exact in any order, and are compared to the last bit.

/** The parameters of a load. */
export interface Load {
  readonly seed: number
  readonly entities: number
}
/** A record of the input. Its key decides on the partition. */
export interface Made {
  readonly key: string | Buffer
  readonly value: string | Buffer | null
  readonly headers: Readonly<Record<string, string>>
}

/** The event time of the first event: a second before a whole minute, so that windows end soon. */
export const startMs = 1_735_689_600_000 - 1_000
const perMs = 2
const tenants = ["acme", "globex", "initech", "umbrella"]
const types = ["transfer", "withdrawal", "refund"]
const minute = 60_000
const hour = 60 * minute

/** A number from 0 to below 1 that depends on the seed, `i` and `of` only (splitmix32). */
const random = (seed: number, i: number, of: number): number => {
  let a = (Math.imul(seed, 0x9e3779b9) + Math.imul(i + 1, 0x85ebca6b) + Math.imul(of + 1, 0xc2b2ae35)) | 0
  a = Math.imul(a ^ (a >>> 16), 0x21f0aaad)
  a = Math.imul(a ^ (a >>> 15), 0x735a2d97)
  return ((a ^ (a >>> 15)) >>> 0) / 4_294_967_296
}

/** A Zipf distribution with s = 1, by inversion of the harmonic sum, which is exact enough for a load. */
const zipf = (u: number, n: number) => Math.min(n - 1, Math.floor(Math.exp(u * Math.log(n + 1))) - 1)

/** The lookup records: one for each entity except one in fifty. */
export const features = ({
  entities,
  seed
}: Load): ReadonlyArray<Made & { readonly key: string; readonly value: string }> =>
  Array.from({ length: entities }, (_, entity) => entity)
    .filter((entity) => random(seed, entity, 10) >= 0.02)
    .map((entity) => {
      const weight = 0.5 + Math.floor(random(seed, entity, 11) * 7) / 4
      const value = {
        entity_id: `e-${entity}`,
        risk_weight: weight,
        threshold: 875 + 25 * (entity % 4),
        segment: `s${entity % 4}`
      }
      return { key: value.entity_id, value: JSON.stringify(value), headers: {} }
    })

interface Raw {
  readonly event_id: string
  readonly entity_id: string
  readonly type: string
  readonly amount: number
  readonly occurred_at: number
  readonly tenant: string
}
const rawOf = ({ entities, seed }: Load, i: number): Raw => {
  const entity = zipf(random(seed, i, 0), entities)
  const late = random(seed, i, 2)
  return {
    event_id: `${seed}-${i}`,
    entity_id: `e-${entity}`,
    type: types[i % 3]!,
    amount: Math.floor(random(seed, i, 1) * 2_400) / 4,
    occurred_at: startMs + Math.floor(i / perMs) - (late < 0.01 ? Math.floor(late * 60_000_000) : 0),
    tenant: tenants[entity % 4]!
  }
}
const hex = (seed: number, i: number, digits: number) =>
  Array.from({ length: digits / 8 }, (_, of) =>
    Math.floor(random(seed, i, 20 + of) * 4_294_967_296)
      .toString(16)
      .padStart(8, "0")
  ).join("")
const made = (load: Load, i: number, raw: Raw): Made => {
  const trace = hex(load.seed, i, 32)
  const traced = { trace_id: trace, traceparent: `00-${trace}-${hex(load.seed, i, 16)}-01` }
  const headers = {
    ...(i % 2 === 0 ? { event_id: raw.event_id, tenant: raw.tenant, event_time: String(raw.occurred_at) } : {}),
    ...(i % 4 === 0 ? traced : {})
  }
  return { key: raw.entity_id, value: JSON.stringify(raw), headers }
}

/** Amounts for which the patched handler throws: an object without a prototype, and an error whose message is an object. */
export const thrown = { bare: -13, strange: -14 } as const
/** The text as UTF-8 with a byte that is none. */
const broken = (text: string) => {
  const bytes = Buffer.from(text)
  bytes[bytes.indexOf("tenant") + 10] = 0xff
  return bytes
}

/** Records that cannot be processed, one of each sort in turn. */
const poison = (load: Load, i: number): Made => {
  const raw = { ...rawOf(load, i), event_id: `poison-${load.seed}-${i}` }
  const sorts: ReadonlyArray<() => Made> = [
    () => ({ key: raw.entity_id, value: `{"event_id":"${raw.event_id}",`, headers: {} }),
    () => made(load, i, { ...raw, amount: "much" as unknown as number }),
    () => made(load, i, { ...raw, occurred_at: Date.UTC(2100, 0) }),
    () => ({ key: raw.entity_id, value: null, headers: {} }),
    () => made(load, i, { ...raw, entity_id: "e-\u0000" }),
    () => ({ ...made(load, i, raw), value: broken(JSON.stringify(raw)) }),
    () => ({ ...made(load, i, raw), key: Buffer.of(0x65, 0x2d, 0xff) }),
    () => ({ ...made(load, i, raw), value: JSON.stringify(raw).replace("{", '{"amount":1,') }),
    () => ({ ...made(load, i, raw), headers: { tenant: "ac\u0000me" } }),
    () => ({ ...made(load, i, raw), headers: { event_id: `poison\u0000${i}` } }),
    () => ({ ...made(load, i, raw), headers: { schema_version: "abc" } }),
    () => made(load, i, { ...raw, amount: thrown.bare }),
    () => made(load, i, { ...raw, amount: thrown.strange })
  ]
  return sorts[Math.floor(i / poisonEvery) % sorts.length]!()
}
const poisonEvery = 400

/**
 * Events around the end of a minute: for each of many entities one at exactly that moment, then one of a window whose grace ends with it. The
 * second one is just late.
 */
const boundary = (load: Load, i: number): ReadonlyArray<Made> => {
  const end = startMs + Math.floor(i / perMs)
  if (i % perMs !== 0 || end % minute !== 0) return []
  const at = (entity: number, time: number, of: string): Made => {
    const raw = { ...rawOf(load, i + entity), entity_id: `e-${entity}`, tenant: tenants[entity % 4]! }
    return made(load, i + entity, { ...raw, event_id: `${of}-${load.seed}-${i}-${entity}`, occurred_at: time })
  }
  const entities = Array.from({ length: Math.min(60, load.entities) }, (_, entity) => entity)
  return [
    ...entities.map((entity) => at(entity, end, "on")),
    ...entities.map((entity) => at(entity, end - 5 * minute - 1 - entity, "edge"))
  ]
}

/** Event `i` and those that accompany it. One in 150 is sent again later, sometimes with the same id and another time. */
const recordsOf = (load: Load, i: number): ReadonlyArray<Made> => {
  const found = [...boundary(load, i), made(load, i, rawOf(load, i))]
  if (i > 100 && random(load.seed, i, 3) < 1 / 150) {
    const earlier = i - 1 - Math.floor(random(load.seed, i, 4) * Math.min(i - 1, 3_000))
    const raw = rawOf(load, earlier)
    found.push(made(load, earlier, raw))
    // more than an hour from the event with the same id it is another event, and late for every window
    if (i % 8 === 0) found.push(made(load, earlier, { ...raw, occurred_at: raw.occurred_at - hour - 1 }))
  }
  if (i % poisonEvery === poisonEvery - 1) found.push(poison(load, i))
  return found
}

/** The records of the events with numbers from `from` to below `to`. */
export const records = (load: Load, from: number, to: number): ReadonlyArray<Made> =>
  Array.from({ length: to - from }, (_, n) => recordsOf(load, from + n)).flat()

/** Events of transactions that are aborted. If they were processed, the comparison would find them. */
export const phantoms = (load: Load, i: number, count: number): ReadonlyArray<Made> =>
  Array.from({ length: count }, (_, n) => {
    const raw = rawOf(load, i + n)
    return made(load, i + n, { ...raw, event_id: `phantom-${load.seed}-${i + n}`, amount: 600 })
  })

/** An ordinary event with the given key and id. */
export const marker = (load: Load, i: number, key: string, id: string): Made =>
  made(load, i, { ...rawOf(load, i), entity_id: key, event_id: id })
