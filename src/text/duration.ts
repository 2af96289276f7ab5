// Durations as people read them. Pure.

/** A duration for people: `45 s`, `5 min`, `2 h 5 min`, `3 d 4 h`. */
export const durationText = (ms: number): string => {
  const seconds = Math.max(0, Math.round(ms / 1000))
  const [minutes, hours, days] = [60, 3_600, 86_400].map((size) => Math.floor(seconds / size)) as [
    number,
    number,
    number
  ]
  const and = (rest: number, unit: string) => (rest === 0 ? "" : ` ${rest} ${unit}`)
  if (days > 0) return `${days} d${and(hours % 24, "h")}`
  if (hours > 0) return `${hours} h${and(minutes % 60, "min")}`
  return minutes > 0 ? `${minutes} min${and(seconds % 60, "s")}` : `${seconds} s`
}
