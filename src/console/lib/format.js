// Numbers, durations and times for people.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 })
const fine = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 })
/** `12,345`; below 10 with up to three digits; `9.35e+307` where the digits would be no help. */
export const number = (value) =>
  value === undefined || value === null
    ? "–"
    : typeof value !== "number" || Math.abs(value) >= 1e15
      ? String(value)
      : Math.abs(value) >= 10 || Number.isInteger(value)
        ? whole.format(value)
        : fine.format(value)
/**
 * A number that is data, of a row or an event: all of its digits, without those of its rounding. A sum such as 80.60000000000001 differs from 80.6 by it: a
 * double has 15 digits that count.
 */
export const dataNumber = (value) =>
  typeof value === "number"
    ? String(Number(value.toPrecision(15)))
    : value === null || value === undefined
      ? "–"
      : String(value)
/** A text that is data, such as a key: in quotes where its ends would not be seen, as of an empty one, or where it has several spaces or lines. */
export const dataText = (text) => (/^$|^["\s]|\s$|\s\s|[\n\r\t]/.test(text) ? JSON.stringify(text) : text)
/** `1 record`, `2 records`. */
export const counted = (count, noun, many = `${noun}s`) => `${number(count)} ${count === 1 ? noun : many}`
/** The positions from `from` to the one before `end`: `0 to 37`, `37`, or `none`. */
export const positionsText = (from, end) =>
  from >= end ? "none" : from === end - 1 ? number(from) : `${number(from)} to ${number(end - 1)}`
/** A duration in milliseconds: `12 ms`, `3.4 s`, `5 min`, `2 h 5 min`, `3 d`, `13 years`. */
export const duration = (ms) => {
  if (ms === undefined || ms === null) return "–"
  if (ms < 1_000) return `${Math.round(ms)} ms`
  const seconds = ms / 1_000
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return `${hours} h${minutes % 60 === 0 ? "" : ` ${minutes % 60} min`}`
  const days = Math.floor(hours / 24)
  return days < 730 ? `${days} d` : `${Math.floor(days / 365.25)} years`
}
/** Bytes: `12 B`, `3.4 KiB`. */
export const bytes = (size) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"]
  let value = size
  let unit = 0
  for (; value >= 1_024 && unit < units.length - 1; unit++) value /= 1_024
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}

const zoneKey = "millrace.utc"
/** Whether times are shown in UTC; else in the viewer's zone. */
export const isUtc = () => localStorage.getItem(zoneKey) === "1"
export const setUtc = (on) => {
  localStorage.setItem(zoneKey, on ? "1" : "0")
  globalThis.dispatchEvent(new Event("zone"))
}
const pad = (n, width = 2) => String(n).padStart(width, "0")
/** A time as `2026-11-30 07:59:23.052`, in the zone that is chosen. `at`: epoch milliseconds, or a text of a date. */
export const time = (at) => {
  const date = new Date(at)
  if (at === null || at === undefined || Number.isNaN(date.getTime())) return "–"
  if (isUtc()) return date.toISOString().replace("T", " ").replace("Z", " UTC")
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`
  return `${day} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)}`
}
/**
 * A time that was typed or copied from a page, as the API takes it: `2026-11-30 12:20:00.000` is in the zone that times are shown in. What is no such time
 * stays as it is.
 */
export const instantOf = (text) => {
  const typed = /^\s*(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d(?:\.\d+)?)?))?\s*(UTC|Z)?\s*$/.exec(text)
  if (typed === null) return text
  const [, day, clock = "00:00", utc] = typed
  const date = new Date(`${day}T${clock}${utc || isUtc() ? "Z" : ""}`)
  return Number.isNaN(date.getTime()) ? text : date.toISOString()
}
/** Whether a field is a time in epoch milliseconds, by its name and its value. */
export const isMoment = (name, value) =>
  /(^|_)(at|time)$/.test(name) && /^\d{12,14}$/.test(String(value)) && Number(value) < 1e14
/** The zone that times are shown in. */
export const zone = () => (isUtc() ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone)
/**
 * Characters that are not seen, or that change the order of those around them: control characters but for tab and line breaks, marks and overrides of the
 * direction, spaces without a width, tags. The joiners of emoji and scripts stay.
 */
const unseen =
  // oxlint-disable-next-line no-control-regex
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu
const escapeOf = (character) => {
  const code = character.codePointAt(0).toString(16)
  return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, "0")}`
}
/** How many characters of one text are shown at most. */
const longest = 100_000
/** A text as it is shown: unseen characters as `\u202e`, and of a very long text the beginning. */
export const visible = (text) => {
  if (text.length > longest)
    return `${visible(text.slice(0, longest))}… (the first ${number(longest)} of ${number(text.length)} characters)`
  return text.replace(unseen, escapeOf)
}
/** The beginning of a text that stands in a line of a table. */
export const shortened = (text, length = 300) => (text.length > length ? `${text.slice(0, length)}…` : text)
/** Bytes of a character in the quotes `$'…'` of shells, for those that a terminal would act on. */
const byteEscapes = (character) =>
  [...new TextEncoder().encode(character)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")
/** A word of a shell: quoted if it has to be, and without characters that a terminal acts on. */
export const shellWord = (text) => {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text
  if (!new RegExp(unseen.source, "u").test(text)) return `'${text.replaceAll("'", `'\\''`)}'`
  return `$'${text
    .replaceAll(/[\\']/g, String.raw`\$&`)
    .replaceAll("\n", String.raw`\n`)
    .replace(unseen, byteEscapes)}'`
}
