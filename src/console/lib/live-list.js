// The list of the live page: what came of a stream, sampled where it is fast, and counted while it is paused.
import { useEffect, useRef, useState } from "./html.js"
import { parseJson, same } from "./json.js"
import { follow } from "./stream.js"

/**
 * How many are listed, how many more at most each time the list is drawn, how often that is in milliseconds, the rate from which on it is drawn once a
 * second, rows whose last values are known, and for how long an empty list may be filled yet.
 */
const most = { shown: 100, fresh: 20, everyMs: 500, calm: 50, rows: 5_000, youngMs: 700 }
/** How many are counted while it is paused; then the connection is closed until it goes on. */
export const mostPaused = 10_000
/** The seconds that a rate is of. */
const rateSeconds = 5

/** What came of a topic or a view. Data of messages that are not listed is never parsed. */
class LiveList {
  state = { state: "connecting" }
  paused = undefined
  openedAt = undefined
  resume = undefined
  #source
  #items = []
  #rows = new Map()
  #fresh = []
  #seconds = []
  #came = 0
  #taken = 0
  #total = 0
  #listed = 0
  #waiting = 0
  #isLive
  #ended

  constructor(source) {
    this.#source = source
    this.#isLive = source.kind === "topic"
  }
  /** Takes messages. Returns false if no more are wanted until it goes on. */
  take(messages) {
    const liveAt = messages.findIndex(({ event }) => event === "live")
    // a row that was there already came earlier, nobody knows when
    const wanted = messages.flatMap((one, i) =>
      ["end", "live", "snapshot"].includes(one.event)
        ? []
        : [{ ...one, isEarlier: !this.#isLive && (liveAt < 0 || i < liveAt) }]
    )
    const ended = messages.findLast(({ event }) => event === "end")
    if (ended !== undefined) this.#ended = parseJson(ended.data)
    this.#isLive ||= messages.some(({ event }) => event === "live")
    if (wanted.length === 0) return true
    if (this.paused !== undefined) {
      this.paused.count += wanted.length
      return this.paused.count < mostPaused
    }
    this.#came += wanted.length
    this.#total += wanted.length
    this.#waiting = Number(/"waiting":(\d+)\}$/.exec(wanted.at(-1).data)?.[1] ?? 0)
    // the list is filled at once, and then moves slowly enough to be read
    const room = Math.max(most.fresh, most.shown - this.#items.length)
    this.#fresh = [...this.#fresh, ...wanted.slice(-room)].slice(-room)
    return true
  }
  /** Whether nothing is listed yet. */
  get isEmpty() {
    return this.#items.length === 0
  }
  /** A second has passed. */
  tick() {
    this.#seconds = [...this.#seconds.slice(1 - rateSeconds), { came: this.#came, taken: this.#taken }]
    this.#came = 0
    this.#taken = 0
  }
  /** Whether more come than anybody reads. */
  get isFast() {
    return this.#seconds.some(({ came }) => came > most.calm)
  }
  /** What is shown now. */
  view() {
    const fresh = this.#fresh.map((one) => this.#itemOf(one)).toReversed()
    this.#fresh = []
    this.#taken += fresh.length
    this.#listed += fresh.length
    if (fresh.length > 0) this.#items = [...fresh, ...this.#items].slice(0, most.shown)
    const mean = (name) => this.#seconds.reduce((all, one) => all + one[name], 0) / Math.max(1, this.#seconds.length)
    return {
      items: this.#items,
      rate: mean("came"),
      listed: mean("taken"),
      total: this.#total,
      left: this.#total - this.#listed,
      waiting: this.#waiting,
      isLive: this.#isLive,
      ended: this.#ended,
      state: this.state,
      missed: this.paused?.count,
      isFast: this.isFast,
      isYoung: this.#items.length === 0 && (this.openedAt === undefined || Date.now() - this.openedAt < most.youngMs)
    }
  }
  #itemOf({ data, event, id, isEarlier }) {
    const found = parseJson(data)
    if (this.#source.kind === "topic") {
      const type = typeof found.value?.type === "string" ? found.value.type : ""
      return { ...found, id, event, type, at: found.appended_at }
    }
    const key = this.#source.key.map((name) => found[name])
    const text = JSON.stringify(key)
    const before = this.#rows.get(text)
    this.#rows.delete(text)
    if (event === "upsert") this.#rows.set(text, found)
    if (this.#rows.size > most.rows) this.#rows.delete(this.#rows.keys().next().value)
    const changed =
      before === undefined || event !== "upsert"
        ? []
        : Object.keys(found).filter((name) => !same(found[name], before[name]))
    const entity = key.find((one) => typeof one === "string")
    return { id, event, at: isEarlier ? undefined : Date.now(), key, entity, value: found, changed }
  }
}

/** Follows a stream, and draws what came twice a second at most. Paused, it counts; then it goes on from where it was paused. */
export const useLive = (path, source, isPaused) => {
  const list = useRef()
  list.current ??= new LiveList(source)
  const [view, setView] = useState(() => list.current.view())
  const [round, setRound] = useState(0)
  const position = useRef()
  useEffect(() => {
    const own = list.current
    const stop = follow(path, {
      from: own.resume,
      isRaw: true,
      onState: (state) => {
        own.state = state
        if (state.state === "open") own.openedAt = Date.now()
        setView(own.view())
      },
      onEvents: (messages) => {
        const isFirst = own.isEmpty
        if (!own.take(messages)) stop()
        if (isFirst) setView(own.view())
      }
    })
    position.current = stop.position
    let drawings = 0
    const draw = () => {
      drawings++
      if (!own.isFast || drawings % 2 === 0) setView(own.view())
    }
    const timers = [setInterval(() => own.tick(), 1_000), setInterval(draw, most.everyMs)]
    return () => {
      stop()
      for (const timer of timers) clearInterval(timer)
    }
  }, [path, round])
  useEffect(() => {
    const own = list.current
    if (isPaused) own.paused = { at: position.current?.(), count: 0 }
    else if (own.paused !== undefined) {
      own.resume = own.paused.at
      own.paused = undefined
      setRound((n) => n + 1)
    }
  }, [isPaused])
  return view
}
