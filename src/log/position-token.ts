// The position token: what a write was answered with, and what a read may wait for. Pure.

/** A position of a topic's partition: that of the next record, so that all before it count. */
export interface TokenPosition {
  readonly topic: string
  readonly partition: number
  readonly position: number
}

/** The token of positions: of several in a partition the last one counts. */
export const positionToken = (positions: Iterable<TokenPosition>): string => {
  const last = new Map<string, TokenPosition>()
  for (const one of positions) {
    const place = `${one.partition}/${one.topic}`
    if ((last.get(place)?.position ?? -1) < one.position) last.set(place, one)
  }
  const parts = [...last.values()].map(({ partition, position, topic }) => [topic, partition, position])
  return `p1.${Buffer.from(JSON.stringify(parts)).toString("base64url")}`
}

const isWhole = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
/** The positions of a token; undefined if it is none. */
export const parseToken = (token: string): ReadonlyArray<TokenPosition> | undefined => {
  if (!/^p1\.[\w-]+$/.test(token)) return undefined
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(token.slice(3), "base64url").toString())
  } catch {
    return undefined
  }
  if (!Array.isArray(parts)) return undefined
  const positions: Array<TokenPosition> = []
  for (const part of parts as ReadonlyArray<unknown>) {
    if (!Array.isArray(part) || part.length !== 3) return undefined
    const [topic, partition, position] = part as ReadonlyArray<unknown>
    if (typeof topic !== "string" || topic.includes("\u0000") || !isWhole(partition) || partition > 999_999_999)
      return undefined
    if (!isWhole(position) || position > 999_999_999_999_999) return undefined
    positions.push({ topic, partition, position })
  }
  return positions
}

/** How long to wait between two looks at whether the positions of a token are there, in milliseconds: from 5, growing to 100. Without end. */
export const tokenPauses = function* (): Generator<number, never> {
  for (let pause = 5; ; pause = Math.min(100, pause * 1.5)) yield pause
}
