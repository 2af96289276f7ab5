// One key: its events at the left, its rows at the right, and a slider that shows what each row was after an event.
import { curlOf, useCredential, useGet } from "../lib/api.js"
import { eventId, inOrder, newestKeys, readTopic, readViews } from "../lib/entity.js"
import { historyOf, outcomesOf, tablesAt, unknownOf } from "../lib/entity-states.js"
import { counted, dataText, number } from "../lib/format.js"
import { html, useEffect, useMemo, useState } from "../lib/html.js"
import { runJob } from "../lib/jobs.js"
import { firstTopic } from "../lib/records.js"
import { useLack } from "../lib/may.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Data, Empty, Field, Loaded, Problem, Time } from "../parts/common.js"
import { AggregateState, TableStates, TimelineEvent } from "../parts/entity.js"

/** How many events are listed at first: those around the one that is chosen. */
const shownEvents = 60
/** How many records a replay may have, and how many at most. */
const records = { usual: 200_000, most: 10_000_000 }

/** The events of the key, topic by topic: `{ sources, error, more(topic) }`. */
const useEvents = (key, topics, round) => {
  const [state, setState] = useState({ sources: undefined })
  useEffect(() => {
    let isGone = false
    const read = async () => {
      const sources = []
      for (let i = 0; i < topics.length; i += 4)
        sources.push(...(await Promise.all(topics.slice(i, i + 4).map((topic) => readTopic(topic, key)))))
      if (!isGone) setState({ sources })
    }
    read().catch((error) => !isGone && setState((old) => ({ ...old, error })))
    return () => (isGone = true)
  }, [key, round])
  const more = async (name) => {
    const own = state.sources.find(({ topic }) => topic === name)
    try {
      const found = await readTopic(
        topics.find((topic) => topic.name === name),
        key,
        own.next
      )
      const searched = own.searched + found.searched
      const all = { ...found, searched, events: [...own.events, ...found.events] }
      setState((old) => ({ sources: old.sources.map((one) => (one.topic === name ? all : one)) }))
    } catch (error) {
      setState((old) => ({ ...old, error }))
    }
  }
  return { ...state, more }
}
/** What the rows of the key were: `{ found, error, progress, isRunning }`. It needs the scope operate. */
const useHistory = (key, round, options) => {
  const [state, setState] = useState({ isRunning: true })
  const credential = useCredential()
  const lack = useLack()("operate")
  useEffect(() => {
    if (lack) return setState({ error: lack, isRunning: false })
    let isGone = false
    const set = (next) => !isGone && setState((old) => ({ ...old, ...next }))
    set({ progress: undefined, error: undefined, isRunning: true })
    runJob("/v1/operations/history", { key, ...options }, ({ progress }) => set({ progress }), {
      kind: "history",
      subject: key
    }).then(
      (found) => set({ found, isRunning: false }),
      (error) => set({ error, isRunning: false })
    )
    return () => (isGone = true)
  }, [key, round, options, credential, lack?.message])
  return state
}
/** The rows of the key as they are now, view by view; undefined before they are read. */
const useRows = (key, topics, views, round) => {
  const [state, setState] = useState()
  useEffect(() => {
    let isGone = false
    const keyFields = new Set(topics.map((topic) => topic.key).filter((field) => field !== null))
    readViews(views, keyFields, key).then(
      (found) => !isGone && setState(found),
      () => !isGone && setState([])
    )
    return () => (isGone = true)
  }, [key, round])
  return state
}

const Slider = ({ index, last, select, selected }) =>
  html`<section class="card" aria-label="Time">
    <${Field}
      label=${index === last ? `Now, after all ${counted(last + 1, "event")}` : `After event ${number(index + 1)} of ${number(last + 1)}`}
      ><input
        type="range"
        class="wide"
        min="0"
        max=${last}
        value=${index}
        aria-valuetext=${`${selected.type ?? selected.topic}, event ${index + 1} of ${last + 1}`}
        onInput=${(event) => select(Number(event.target.value))}
    /><//>
    <div class="row spread">
      <span
        ><strong>${selected.type ?? selected.topic}</strong>
        <span class="quiet"> ${selected.topic} ${selected.partition}:${selected.position}, stored </span
        ><${Time} at=${selected.appended_at}
      /></span>
      <span class="row">
        <button type="button" class="small" disabled=${index === 0} onClick=${() => select(index - 1)}>Earlier</button>
        <button type="button" class="small" disabled=${index === last} onClick=${() => select(index + 1)}>Later</button>
        <button type="button" class="small" disabled=${index === last} onClick=${() => select(last)}>Now</button>
      </span>
    </div>
  </section>`

/** The topics that were not searched to their first record: how far, and what looks further. */
const Unread = ({ events: { more, sources } }) =>
  sources
    .filter(({ isDone }) => !isDone)
    .map(
      ({ partition, searched, topic }) =>
        html`<p key=${topic} class="row">
          <span class="quiet"
            >${topic}:${" "}${searched > 0 ? `looked at the newest ${counted(searched, "position")} of partition ${partition}` : "there are earlier events"}.</span
          >
          <button type="button" class="small" onClick=${() => more(topic)}>Look further back</button>
        </p>`
    )
const Events = ({ events, id, index, outcomes, select, timeline }) => {
  const [isLong, setLong] = useState(false)
  const last = timeline.length - 1
  const from = isLong ? 0 : Math.max(0, Math.min(index - shownEvents / 2, last + 1 - shownEvents))
  const listed = isLong ? timeline : timeline.slice(from, from + shownEvents)
  return html`<section class="card" aria-label="Events">
    <div class="row spread">
      <h2>Events</h2>
      <span class="quiet">${number(timeline.length)}, the newest first</span>
    </div>
    ${timeline.length === 0 && html`<p class="quiet">No record with this key was found.</p>`}
    <ol class="events">
      ${listed
        .map(
          (event, i) =>
            html`<${TimelineEvent}
              key=${eventId(event)}
              event=${event}
              outcome=${outcomes.get(eventId(event))}
              ofKey=${id}
              isSelected=${from + i === index}
              onSelect=${() => select(from + i)}
            />`
        )
        .toReversed()}
    </ol>
    ${
      listed.length < timeline.length &&
      html`<button type="button" onClick=${() => setLong(true)}>All ${number(timeline.length)} events</button>`
    }
    <${Unread} events=${events} />
  </section>`
}

/** How far the computation of the past is, or why there is none. */
const Past = ({ history: { error, isRunning, progress } }) =>
  html`${
    isRunning &&
    html`<p class="quiet" role="status">
      The past is
      computed${progress?.total ? `: ${progress.projection}, ${number(progress.replayed)} of ${number(progress.total)} records` : ""}…
    </p>`
  }
  ${
    error &&
    (error.status === 403
      ? html`<p class="note-box">
          What rows were in the past is computed by a replay, which needs a credential with the scope operate and
          without a tenant. Rows are shown as they are now.
        </p>`
      : html`<${Problem} error=${error} />`)
  }`
const Unknown = ({ history: { found, isRunning }, options, setOptions, withoutPast }) => {
  const notes = unknownOf(found, withoutPast)
  if (notes.length === 0) return null
  const isPartial = found.projections.some(({ complete, rows }) => complete === false && rows.length > 0)
  const { records: allowed = records.usual } = options
  const isLeft = found.projections.some(({ left }) => left > 0) && allowed < records.most
  return html`<section class="card" aria-label="What is not known">
    <h2>What is not known</h2>
    <ul class="notes">
      ${notes.map((note) => html`<li key=${note}>${note}</li>`)}
    </ul>
    <p class="quiet">
      The past is computed by the code of today: an event that failed then, and was retried later, is shown as it is
      handled now.
    </p>
    <div class="row">
      ${isPartial && html`<button type="button" disabled=${isRunning} onClick=${() => setOptions({ ...options, partitions: "all" })}>Replay all partitions</button>`}
      ${isLeft && html`<button type="button" disabled=${isRunning} onClick=${() => setOptions({ ...options, records: Math.min(records.most, allowed * 10) })}>Replay more records</button>`}
    </div>
  </section>`
}

/** The aggregates that have a stream of this id: their version after an event, and the newest. */
const streamsAt = (topics, timeline, index) =>
  topics
    .filter(({ aggregate }) => aggregate)
    .map(({ name }) => {
      const versions = (events) =>
        Math.max(
          0,
          ...events.filter(({ topic, version }) => topic === name && version > 0).map(({ version }) => version)
        )
      return { name, version: versions(timeline.slice(0, index + 1)), versions: versions(timeline) }
    })
    .filter(({ versions }) => versions > 0)

const Timeline = ({ data, id, query, topics, views }) => {
  const { events, history, options, read, setOptions } = data
  const past = useMemo(() => historyOf(history.found, views), [history.found])
  const outcomes = useMemo(() => outcomesOf(past), [past])
  // those of the history have no data; of other keys, and retries of dead letters, there are no others
  const timeline = useMemo(
    () => inOrder([...past.events, ...events.sources.flatMap((source) => source.events)]),
    [events.sources, past]
  )
  const ids = useMemo(() => timeline.map(eventId), [timeline])
  const last = timeline.length - 1
  const at = ids.indexOf(query.at)
  const index = at < 0 ? last : at
  const select = (next) =>
    go(linkTo(["entity", id], { ...query, at: next >= last ? "" : ids[Math.max(0, next)] }), { replace: true })
  const { tables, withoutPast } = tablesAt({ history: past, ids, index, read })
  const streams = streamsAt(topics, timeline, index)
  const isNothing = read !== undefined && tables.length === 0 && streams.length === 0
  if (timeline.length === 0 && isNothing)
    return html`<${Empty} title=${`Nothing of ${dataText(id)} was found`}>
        <p>No record that was looked at has this key, and no table a row of it.</p>
        <p class="row">
          <a href=${linkTo("events")}>Events</a><a href=${linkTo("tables")}>Tables</a
          ><a href=${linkTo("send")}>Send an event</a>
        </p> <//
      ><${Unread} events=${events} />`
  return html`${last > 0 && html`<${Slider} index=${index} last=${last} select=${select} selected=${timeline[index]} />`}
    <div class="entity">
      <${Events} events=${events} id=${id} index=${index} outcomes=${outcomes} select=${select} timeline=${timeline} />
      <div class="stack">
        <${Past} history=${history} />
        ${streams.map((stream) => html`<${AggregateState} key=${stream.name} id=${id} ...${stream} />`)}
        ${tables.map((table) => html`<${TableStates} key=${table.title} table=${table} />`)}
        ${read === undefined && html`<p class="quiet" role="status">Rows are read…</p>`}
        ${
          isNothing &&
          !history.isRunning &&
          html`<${Empty} title=${index === last ? "No rows" : "No rows at this time"}
            ><p>
              ${index === last ? "No table has a row of this key." : "None of its rows was there yet, as far as is known."}
            </p><//
          >`
        }
        <${Unknown} history=${history} options=${options} setOptions=${setOptions} withoutPast=${withoutPast} />
      </div>
    </div>`
}

const Entity = ({ id, query, topics, views }) => {
  const [round, setRound] = useState(0)
  const [options, setOptions] = useState({})
  const events = useEvents(id, topics, round)
  const read = useRows(id, topics, views, round)
  const history = useHistory(id, round, options)
  const followed = events.sources?.find((source) => source.events.length > 0)?.topic
  return html`<${Problem} error=${events.error} />
    ${
      events.sources === undefined
        ? events.error === undefined && html`<p class="quiet" role="status">Loading…</p>`
        : html`<${Timeline}
            id=${id}
            query=${query}
            topics=${topics}
            views=${views}
            data=${{ events, history, options, read, setOptions }}
          />`
    }
    <div class="row">
      <button type="button" onClick=${() => setRound(round + 1)}>Look again</button>
      ${followed && html`<a href=${linkTo("live", { topic: followed, key: id })}>Follow it live</a>`}
    </div>
    <${Command}
      label="request"
      text=${curlOf("POST", "/v1/operations/history", { body: JSON.stringify({ key: id, ...options }) })}
    />`
}

/** Asks for a key, and shows those that were in the newest events. */
const Choose = ({ topics }) => {
  const [text, setText] = useState("")
  const topic = firstTopic(topics)
  const [keys, setKeys] = useState([])
  useEffect(() => {
    // without them a key is typed
    if (topic !== undefined) newestKeys(topic).then(setKeys, () => undefined)
  }, [])
  const submit = (event) => {
    event.preventDefault()
    go(linkTo(["entity", text]))
  }
  return html`<form class="card" onSubmit=${submit}>
    <div class="row end">
      <${Field} label="Key"><input value=${text} onInput=${(event) => setText(event.target.value)} /><//>
      <button class="primary">Show</button>
    </div>
    ${
      keys.length > 0
        ? html`<p class="quiet">Keys of the newest events of ${topic.name}:</p>
            <p class="row">
              ${keys.map((key) => html`<a key=${key} href=${linkTo(["entity", key])}><${Data} value=${key} /></a>`)}
            </p>`
        : html`<p class="quiet">
            The key of an event, as of a customer, a device or an order: the <a href=${linkTo("events")}>events</a> have
            them.
          </p>`
    }
  </form>`
}

export default ({ path: [id], query }) => {
  const topics = useGet("/v1/topics")
  const views = useGet("/v1/views")
  const isChosen = id !== undefined
  return html`<header class="head">
      <h1>${isChosen ? html`<a href=${linkTo("entity")}>Entity</a> / <${Data} value=${id} />` : "Entity"}</h1>
    </header>
    <p class="lead">Everything of one key: its events in all topics, and its rows, now and after each event.</p>
    <${Loaded} of=${topics.data === undefined || !isChosen || views.error?.status === 404 ? topics : views}>
      ${() =>
        topics.data &&
        (isChosen
          ? html`<${Entity}
              key=${id}
              id=${id}
              query=${query}
              topics=${topics.data.topics}
              views=${views.data?.views ?? []}
            />`
          : html`<${Choose} topics=${topics.data.topics} />`)}
    <//>`
}
