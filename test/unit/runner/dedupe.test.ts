// Seen ids against a model that keeps everything: batches that commit or do not, failed events, restarts and small memories.
import { describe, expect, test } from "vitest"
import { SeenIds } from "../../../src/runner/dedupe.ts"
import { randomOf, seed, type Random } from "../../support/random.ts"

type Ranges = ReadonlyArray<{ readonly from: number; readonly to: number }>

/** What commits stored, and what the store would give for ranges: whole chunks that touch one. */
class Stored {
  readonly chunks: Array<NonNullable<ReturnType<SeenIds["packed"]>>> = []
  loads = 0
  of(ranges: Ranges): ReadonlyArray<Uint8Array> {
    this.loads++
    return this.chunks
      .filter(({ maxTime, minTime }) => ranges.some(({ from, to }) => maxTime >= from && minTime <= to))
      .map(({ packed }) => packed)
  }
}
/** The rule itself: an earlier record with the tenant and id, dated at most so far from it. */
class Model {
  private readonly committed: Array<readonly [key: string, time: number]> = []
  private noted: Array<readonly [key: string, time: number]> = []
  private readonly withinMs: number
  constructor(withinMs: number) {
    this.withinMs = withinMs
  }
  test(tenant: string | undefined, id: string, time: number): boolean {
    const key = JSON.stringify([tenant, id])
    const isNear = ([other, at]: readonly [string, number]) => other === key && Math.abs(at - time) <= this.withinMs
    const isDuplicate = this.committed.some(isNear) || this.noted.some(isNear)
    this.noted.push([key, time])
    return isDuplicate
  }
  forget(tenant: string | undefined, id: string, time: number): void {
    const key = JSON.stringify([tenant, id])
    this.noted.splice(
      this.noted.findLastIndex(([other, at]) => other === key && at === time),
      1
    )
  }
  onCommitted(): void {
    this.committed.push(...this.noted)
    this.noted = []
  }
  reset(): void {
    this.noted = []
  }
}

/** One life of a partition: what differs from the model is returned. */
const live = (random: Random) => {
  const withinMs = random.pick([0, 1, 1_000, 60_000, 3_600_000, 86_400_000])
  const maxIds = random.pick([1, 20, 2_000_000])
  const spread = random.pick([10, 5_000, 200_000, 10_000_000, 400_000_000])
  const stored = new Stored()
  const model = new Model(withinMs)
  let newest: number | undefined
  let seen = new SeenIds(withinMs, newest, maxIds)
  const wrong: Array<string> = []
  for (let batch = 0; batch < 25; batch++) {
    if (random.chance(0.15)) seen = new SeenIds(withinMs, newest, maxIds) // a restart
    const events = Array.from({ length: random.int(0, 12) }, () => ({
      tenant: random.pick([undefined, "a", "b"]),
      id: `id${random.int(0, 8)}`,
      time: random.int(-spread, spread)
    }))
    const ranges = seen.missing(events.map(({ time }) => time))
    if (ranges.length > 0) seen.load(ranges, stored.of(ranges))
    for (const { id, tenant, time } of events) {
      const is = seen.test(tenant, id, time)
      const should = model.test(tenant, id, time)
      if (is !== should) wrong.push(`batch ${batch}: ${tenant}/${id} at ${time} within ${withinMs}: ${is}`)
      if (!should && random.chance(0.1)) {
        seen.forget(tenant, id, time)
        model.forget(tenant, id, time)
      }
    }
    if (random.chance(0.2)) {
      seen.reset()
      model.reset()
      continue
    }
    const packed = seen.packed()
    if (packed !== undefined) stored.chunks.push(packed)
    if (packed !== undefined) newest = Math.max(newest ?? -Infinity, packed.maxTime)
    seen.onCommitted()
    model.onCommitted()
  }
  return { wrong, loads: stored.loads }
}

describe("seen ids", () => {
  test(`find the duplicates that the model finds, seed ${seed}`, () => {
    const random = randomOf(seed)
    let loads = 0
    for (let run = 0; run < 300; run++) {
      const result = live(random)
      expect(result.wrong.slice(0, 3), `run ${run}`).toEqual([])
      loads += result.loads
    }
    expect(loads).toBeGreaterThan(300)
  })

  test("are duplicates up to the bound, which is included, and not beyond it", () => {
    const seen = new SeenIds(1_000, undefined)
    const at = (time: number) => {
      seen.missing([time])
      return seen.test(undefined, "x", time)
    }
    expect([at(0), at(1_000), at(2_001), at(-1_000)]).toEqual([false, true, false, true])
  })

  test("of different tenants are different, and so are those of no tenant and of an empty one", () => {
    const seen = new SeenIds(1_000, undefined)
    seen.missing([0])
    expect([
      seen.test("a", "b", 0),
      seen.test("b", "b", 0),
      seen.test(undefined, "b", 0),
      seen.test("", "b", 0)
    ]).toEqual([false, false, false, false])
    expect(seen.test("a", "b", 0)).toBe(true)
  })

  test("are packed in 20 bytes each with the bounds of their times, and forgotten after a reset", () => {
    const seen = new SeenIds(1_000, undefined)
    seen.missing([-5, 7])
    seen.test(undefined, "x", 7)
    seen.test(undefined, "y", -5)
    seen.test(undefined, "x", 7) // noted already
    expect(seen.packed()).toMatchObject({ count: 2, minTime: -5, maxTime: 7 })
    expect(seen.packed()!.packed.byteLength).toBe(40)
    seen.reset()
    expect(seen.packed()).toBeUndefined()
    expect(seen.test(undefined, "x", 7)).toBe(false)
  })

  test("are stored without one that was undone between others", () => {
    const seen = new SeenIds(1_000, undefined)
    const ids = Array.from({ length: 200 }, (_, i) => `id${i}`)
    seen.missing([0])
    for (const id of ids) seen.test(undefined, id, 0)
    for (const id of ["id70", "id199", "id0", "no such id"]) seen.forget(undefined, id, 0)
    const stored = seen.packed()!
    expect(stored).toMatchObject({ count: 197 })
    const next = new SeenIds(1_000, 0)
    next.load(next.missing([0]), [stored.packed])
    expect(ids.filter((id) => !next.test(undefined, id, 0))).toEqual(["id0", "id70", "id199"])
  })

  test("are loaded only for ranges that may have stored ids; adjoining ranges are one", () => {
    const seen = new SeenIds(60_000, 300_000)
    expect(seen.missing([120_000])).toEqual([{ from: 60_000, to: 239_999 }])
    seen.load([{ from: 60_000, to: 239_999 }], [])
    expect(seen.missing([120_000])).toEqual([])
    expect(seen.missing([10_000_000])).toEqual([])
    expect(new SeenIds(60_000, undefined).missing([0, 5])).toEqual([])
  })

  test("take bounded memory, and evicted ones are loaded again", () => {
    const stored = new Stored()
    const seen = new SeenIds(1_000, undefined, 100)
    for (let i = 0; i < 5_000; i += 50) {
      const times = Array.from({ length: 50 }, (_, k) => (i + k) * 10_000)
      const ranges = seen.missing(times)
      if (ranges.length > 0) seen.load(ranges, stored.of(ranges))
      for (const time of times) expect(seen.test(undefined, `id${time}`, time)).toBe(false)
      stored.chunks.push(seen.packed()!)
      seen.onCommitted()
    }
    const kept = seen as unknown as { readonly ids: number; readonly buckets: ReadonlyMap<number, unknown> }
    expect(kept.ids).toBeLessThanOrEqual(100)
    expect(kept.buckets.size).toBeLessThan(100)
    const before = stored.loads
    const ranges = seen.missing([0])
    seen.load(ranges, stored.of(ranges))
    expect(stored.loads).toBe(before + 1)
    expect(seen.test(undefined, "id0", 0)).toBe(true)
  })

  test("stay in memory while each batch needs them, however many they are", () => {
    const stored = new Stored()
    let seen = new SeenIds(3_600_000, undefined, 100)
    const batch = (from: number) => {
      const times = Array.from({ length: 80 }, (_, k) => (from + k) * 1_000)
      const ranges = seen.missing(times)
      if (ranges.length > 0) seen.load(ranges, stored.of(ranges))
      const found = times.filter((time) => seen.test(undefined, `id${time}`, time))
      const packed = seen.packed()
      if (packed !== undefined) stored.chunks.push(packed)
      seen.onCommitted()
      return found.length
    }
    for (let i = 0; i < 20; i++) expect(batch(i * 80)).toBe(0)
    expect(stored.loads).toBe(0)
    // a process that starts loads them once
    seen = new SeenIds(3_600_000, 1_599_000, 100)
    expect([batch(1_520), batch(1_600), batch(1_680)]).toEqual([80, 0, 0])
    expect(stored.loads).toBe(1)
  })
})
