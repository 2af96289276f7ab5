// A client that follows a view as the guide says: it folds the rows and changes that it gets, and resumes from the last id that it has.
import { stream } from "./http.ts"

/** A row of a view. */
export type Row = Readonly<Record<string, unknown>>
/** What a client has got, in the order in which it did. */
export interface Got {
  readonly event: "snapshot" | "upsert" | "delete" | "live"
  readonly data: Row
}

/** Follows a view by server-sent events. `rows` is by the JSON of the key. */
export const followView = (urlOf: () => string, query = "", headers: Readonly<Record<string, string>> = {}) => {
  const rows = new Map<string, Row>()
  const got: Array<Got> = []
  const faults: Array<string> = []
  let last: string | undefined
  let isLive = false
  const keyOf = ({ id, who }: Row) => String(id ?? who)
  const take = ({ data, event }: Got): void => {
    got.push({ event, data })
    if (event === "snapshot") {
      rows.clear()
      isLive = false
    } else if (event === "live") isLive = true
    else if (event === "upsert") rows.set(keyOf(data), data)
    else if (!rows.delete(keyOf(data))) faults.push(`deleted, but not there: ${keyOf(data)}`)
  }
  return {
    rows,
    got,
    faults,
    id: () => last,
    isLive: () => isLive,
    /** Connects, and takes up to `most` frames, or until `isDone`; then disconnects. Resolves to the reason if the server ended the stream. */
    run: async (most: number, isDone: () => boolean = () => false): Promise<string | undefined> => {
      const resume = last === undefined ? {} : { "last-event-id": last }
      const opened = await stream(`${urlOf()}${query}`, { ...headers, ...resume })
      if (opened.status === 503) return "refused"
      if (opened.status !== 200) throw new Error(`refused with ${opened.status}`)
      try {
        for (let n = 0; n < most && !isDone(); n++) {
          const frame = await opened.frame()
          if (frame === undefined) return "cut"
          if (frame.event === "end") return (JSON.parse(frame.data!) as { readonly reason: string }).reason
          if (frame.event !== undefined)
            take({ event: frame.event as Got["event"], data: JSON.parse(frame.data!) as Row })
          if (frame.id !== undefined) last = frame.id
        }
        return undefined
      } finally {
        opened.close()
      }
    }
  }
}
