// Records of topics: the topic that is shown first, the route, and the newest records of a partition. Positions of what only announces a time have no record.
import { get, withQuery } from "./api.js"

/** The topic whose records a page shows if none is named: the first that clients write events to; undefined if there is no topic. */
export const firstTopic = (topics) =>
  topics.find(({ compacted, written_by: by }) => by.length === 0 && !compacted) ?? topics[0]
/** The path of a topic's records. */
export const recordsPath = (topic, parameters) =>
  withQuery(`/v1/topics/${encodeURIComponent(topic)}/records`, parameters)

/** How often a request goes on where the one before reached its limit (50,000 positions) and nothing was found. */
const most = { rounds: 4 }

/** The page of the newest records before `from`, as the route answers it, with all that was looked at as `searched`. */
export const newestOf = async (topic, { from, ...given }) => {
  const read = (before) => get(recordsPath(topic, { ...given, from: before, order: "desc" }))
  const first = await read(from)
  let page = first
  for (let round = 1; round < most.rounds && page.records.length === 0 && page.next > page.start; round++)
    page = await read(String(page.next))
  return { ...page, searched: { from: page.searched.from, to: first.searched.to } }
}
