// A number with its noun. Pure.

/** `1 record`, `2 records`: for nouns whose plural ends with an s. */
export const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`
