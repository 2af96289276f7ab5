// One sentence about an application: what it is, by its own declarations, and what is seen now. Pure.
import { duration, number } from "./format.js"

/** `a, b and c`; of more than `most` the first ones, and how many follow. */
export const listed = (names, most = 4) => {
  const shown = names.length > most ? [...names.slice(0, most - 1), `${names.length - most + 1} more`] : names
  return shown.length < 2 ? (shown[0] ?? "") : `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`
}
/** What is done, as `turns payment events into alerts, and publishes alerts.v1`. */
const deedsOf = ({ aggregates, projections, topics, views }) => {
  const sources = topics.filter(({ kind }) => kind === "events")
  const types = sources.flatMap(({ name, types: own }) => (own.length === 0 ? [`${name} records`] : own))
  const models = [...new Set(projections.flatMap(({ tables, windows }) => [...tables, ...windows])), ...views]
  const published = topics.filter(({ dead_letters: isDead, kind }) => kind === "derived" && !isDead)
  const input = types.length > 0 ? `${listed(types)}${types.at(-1).endsWith(" records") ? "" : " events"}` : undefined
  return [
    input && (models.length > 0 ? `turns ${input} into ${listed(models)}` : `takes ${input}`),
    aggregates.length > 0 && `decides the commands of ${listed(aggregates.map(({ name }) => name))}`,
    !input && models.length > 0 && `keeps ${listed(models)}`,
    published.length > 0 && `publishes ${listed(published.map(({ name }) => name))}`
  ].filter(Boolean)
}
/** What is seen now: `rate` of events that come in a second (undefined: not known yet), how many there are, and how long a row takes. */
const nowOf = ({ delay, rate, records }) => {
  const after = delay === undefined ? "" : `${duration(delay)} after its event was stored`
  if (records === 0) return "nothing has come in yet"
  if (rate === undefined) return `its topics have ${number(records)} ${records === 1 ? "record" : "records"}`
  if (rate > 0)
    return `${number(rate)} ${rate === 1 ? "event comes" : "events come"} in a second${after && `, and a row is there ${after}`}`
  return `nothing comes in at the moment${after && `; the newest row was there ${after}`}`
}
/** The sentence. `application` is what `GET /v1/operations/application` answers. */
export const sentenceOf = (application, now) => {
  const deeds = deedsOf(application)
  const what =
    deeds.length === 0
      ? "declares nothing yet"
      : deeds.length === 1
        ? deeds[0]
        : `${deeds.slice(0, -1).join(", ")}, and ${deeds.at(-1)}`
  return `${application.name} ${what}: ${nowOf(now)}.`
}
