// The synthetic load of the benchmarks: events over entities by Zipf, some late, some with an alert. Each depends on the seed and its number only.

/** The size of a load, and its seed. */
export interface Load {
  readonly events: number
  readonly entities: number
  readonly seed: number
}
/** An event and its JSON text. */
export interface Made {
  readonly key: string
  readonly id: string
  readonly tenant: string
  readonly time: number
  readonly text: string
}

/** When the load starts in event time, and how many events it has in a second of that. */
const startMs = 1_735_689_600_000
const perSecond = 2_000
const tenants = ["acme", "globex", "initech", "umbrella"]
const types = ["transfer", "withdrawal", "refund"]

/** A number from 0 to 1 that depends on the seed and `i` only (splitmix32). */
export const random = (seed: number, i: number): number => {
  let a = (Math.imul(seed, 0x9e3779b9) + Math.imul(i + 1, 0x85ebca6b)) | 0
  a = Math.imul(a ^ (a >>> 16), 0x21f0aaad)
  a = Math.imul(a ^ (a >>> 15), 0x735a2d97)
  return ((a ^ (a >>> 15)) >>> 0) / 4_294_967_296
}

/** Zipf with s = 1 by inversion of the harmonic sum, accurate enough for a load. */
const zipf = (u: number, n: number) => Math.min(n - 1, Math.floor(Math.exp(u * Math.log(n + 1))) - 1)

/** The features of all entities but one in fifty, as NDJSON lines. */
export const featuresOf = ({
  entities,
  seed
}: Load): ReadonlyArray<{ readonly key: string; readonly text: string }> => {
  const found = []
  for (let entity = 0; entity < entities; entity++) {
    if (random(seed + 1, entity) < 0.02) continue
    const weight = 0.5 + Math.round(random(seed + 2, entity) * 150) / 100
    const key = `e-${entity}`
    found.push({
      key,
      text: `{"entity_id":"${key}","risk_weight":${weight},"threshold":900,"segment":"s${entity % 4}"}`
    })
  }
  return found
}
/** Event number `i`, from 0. */
export const eventOf = ({ entities, seed }: Load, i: number, now?: number): Made => {
  const entity = zipf(random(seed, 4 * i), entities)
  const amount = Math.round(random(seed, 4 * i + 1) * 76_000) / 100
  const late = random(seed, 4 * i + 2)
  const time = (now ?? startMs + Math.floor((i * 1000) / perSecond)) - (late < 0.01 ? Math.floor(late * 60_000_000) : 0)
  const key = `e-${entity}`
  const id = `${seed}-${i}`
  const tenant = tenants[entity % 4]!
  const type = types[i % 3]!
  const text = `{"event_id":"${id}","entity_id":"${key}","type":"${type}","amount":${amount},"occurred_at":${time},"tenant":"${tenant}"}`
  return { key, id, tenant, time, text }
}
