// A number with its noun. Pure.

/** A whole number with separators of thousands: `1,234`. */
export const grouped = (n: number): string => Math.round(n).toLocaleString("en-US")

const withNoun = (text: string, count: number, noun: string) => `${text} ${noun}${count === 1 ? "" : "s"}`

/** `1 record`, `2 records`: for nouns whose plural ends with an s. */
export const counted = (count: number, noun: string): string => withNoun(String(count), count, noun)

/** As `counted`, with commas between thousands, for numbers that are large as a rule: `1,200 records`. */
export const countedLarge = (count: number, noun: string): string => withNoun(grouped(count), count, noun)
