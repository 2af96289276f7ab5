// Finds what a misspelled name may have meant. Pure.

/** How many single characters must be inserted, deleted, replaced or swapped with the next to turn one text into the other. */
const distance = (a: string, b: string): number => {
  let before: Array<number> = []
  let last = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      row[j] = Math.min(row[j - 1]! + 1, last[j]! + 1, last[j - 1]! + (same ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        row[j] = Math.min(row[j]!, before[j - 2]! + 1)
    }
    before = last
    last = row
  }
  return last[b.length]!
}

/** Whether a name is almost another one: at most two characters differ, or upper and lower case. */
export const isSimilar = (name: string, other: string): boolean =>
  distance(name.toLowerCase(), other.toLowerCase()) <= 2

const maxListed = 10
/** The name that may have been meant, as `did you mean X?`; undefined if none is similar. */
export const didYouMean = (name: string, known: ReadonlyArray<string>): string | undefined => {
  const [nearest] = known
    .map((other) => ({ other, far: distance(name.toLowerCase(), other.toLowerCase()) }))
    .toSorted((a, b) => a.far - b.far)
  const isNear = nearest !== undefined && nearest.far <= Math.max(1, Math.floor(name.length / 3))
  return isNear ? `did you mean ${nearest.other}?` : undefined
}
/** Advice for a name that is not known: the similar one, else the names that there are. Undefined if there are none. */
export const adviceFor = (name: string, known: ReadonlyArray<string>): string | undefined => {
  if (known.length === 0) return undefined
  const similar = didYouMean(name, known)
  if (similar !== undefined) return similar
  const more = known.length > maxListed ? ` and ${known.length - maxListed} more` : ""
  return `one of ${known.slice(0, maxListed).join(", ")}${more}`
}
