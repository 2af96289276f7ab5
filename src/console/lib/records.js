// The newest records of a partition, through all that is no record to people: what only announces a time has positions, too.
import { get, withQuery } from "./api.js"

/** How often a request goes on where the one before reached its limit (50,000 positions) and nothing was found. */
const most = { rounds: 4 }

/** The page of the newest records before `from`, as the route answers it, with all that was looked at as `searched`. */
export const newestOf = async (topic, { from, ...given }) => {
  const read = (before) =>
    get(withQuery(`/v1/topics/${encodeURIComponent(topic)}/records`, { ...given, from: before, order: "desc" }))
  const first = await read(from)
  let page = first
  for (let round = 1; round < most.rounds && page.records.length === 0 && page.next > page.start; round++)
    page = await read(String(page.next))
  return { ...page, searched: { from: page.searched.from, to: first.searched.to } }
}
