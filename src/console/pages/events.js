// The records of a topic: of one partition or all, by key, type, tenant and time; one with its headers, decoded and raw, and the requests that stand for it.
import { curlOf, useGet } from "../lib/api.js"
import { counted, number, positionsText } from "../lib/format.js"
import { html, useEffect, useRef, useState } from "../lib/html.js"
import { firstTopic, newestOf, recordsPath } from "../lib/records.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Empty, Field, JsonLine, Loaded, NoSuch, Table, Tag, Time } from "../parts/common.js"
import { KeyLink, RecordDialog } from "../parts/record.js"

/** How many records a page has, and how many a page of all partitions has. */
const rowsOfPage = 50
const typeOf = (value) =>
  typeof value === "object" && value !== null && typeof value.type === "string" ? value.type : ""

const columnsOf = (topic, query) => {
  const linkOf = ({ partition, position }) => linkTo("events", { ...query, topic, at: `${partition}:${position}` })
  return [
    {
      name: "position",
      cell: (record) => html`<a href=${linkOf(record)}>${record.partition}:${record.position}</a>`
    },
    { name: "appended_at", label: "stored", cell: (record) => html`<${Time} at=${record.appended_at} />` },
    { name: "type", cell: ({ value }) => typeOf(value) },
    { name: "key", cell: ({ key }) => html`<${KeyLink} value=${key} most=${32} />` },
    { name: "tenant", cell: ({ tenant }) => tenant ?? "" },
    { name: "event_time", label: "event time", cell: (record) => html`<${Time} at=${record.event_time} />` },
    {
      name: "value",
      cell: ({ value }) => (value === null ? html`<${Tag}>deleted<//>` : html`<${JsonLine} value=${value} />`)
    }
  ]
}
const Records = ({ query, records, topic }) =>
  html`<${Table}
    caption=${`Records of ${topic.name}`}
    rows=${records}
    keyOf=${({ partition, position }) => `${partition}:${position}`}
    columns=${columnsOf(topic.name, query)}
  />`

/** What a search has found, and how far it looked. */
const foundText = (count, { from, to }, isDone, order) => {
  const end = order === "asc" ? "newest" : "oldest"
  const rest = isDone ? `the ${end} included.` : "and there may be more beyond."
  return `${counted(count, "record")} found; looked at ${counted(to - from, "position")}, ${positionsText(from, to)}, ${rest}`
}
/** A page of one partition, newest first, or what a search has found on its way through it. */
const Partition = ({ query, set, topic }) => {
  const { from, key, order = "desc", partition, tenant, type } = query
  const path = recordsPath(topic.name, { partition, key, type, tenant, from, order, limit: String(rowsOfPage) })
  const isNewest = from === undefined && order === "desc"
  const page = useGet(path, isNewest ? { every: 5_000 } : {})
  const isSearch = [key, type, tenant].some((one) => one !== undefined)
  return html`<section class="card">
      <${Loaded} of=${page}>
        ${({ end, next, partition: found, records, searched, start }) => {
          const rows = order === "asc" ? records.toReversed() : records
          const isDone = order === "asc" ? next >= end : next <= start
          return html`<p role="status" class="quiet">
              ${start < end ? `Partition ${found} has the positions ${positionsText(start, end)}. ` : `Partition ${found} has no records; the next one gets the position ${number(end)}.`}
              ${(isSearch || records.length === 0) && start < end && foundText(records.length, searched, isDone, order)}
            </p>
            ${
              rows.length === 0
                ? html`<${Empty}
                    title=${start === end ? "The partition is empty" : isDone ? "There is none" : "None here, so far"}
                    ><p>
                      ${start === end ? "Send an event, or choose another partition." : isDone ? "Change the filters, or choose another partition." : "A request looks so far at most. It goes on by the button."}
                    </p><//
                  >`
                : html`<${Records} topic=${topic} query=${query} records=${rows} />`
            }
            <div class="row">
              <button
                type="button"
                disabled=${searched.to >= end}
                onClick=${() => set({ order: "asc", from: String(order === "asc" ? next : searched.to) })}
              >
                ${isSearch ? "Look on, later" : "Later"}
              </button>
              <button
                type="button"
                disabled=${searched.from <= start}
                onClick=${() => set({ order: "desc", from: String(order === "asc" ? searched.from : next) })}
              >
                ${isSearch ? "Look on, earlier" : "Earlier"}
              </button>
              <button type="button" disabled=${isNewest} onClick=${() => set({ order: "", from: "" })}>Newest</button>
            </div>`
        }}
      <//>
    </section>
    <${Command} label="request" text=${curlOf("GET", path)} />`
}

/** How many partitions are read at once. */
const atOnce = 6
/** The newest records of all partitions before a time, newest first: `{ records, looked, isDone }`. */
const readAll = async (topic, { from, tenant, type }) => {
  const read = (partition) =>
    newestOf(topic, { partition: String(partition), from, type, tenant, limit: String(rowsOfPage) })
  const first = await read(0)
  const pages = [first]
  for (let next = 1; next < first.partitions; next += atOnce)
    pages.push(
      ...(await Promise.all(
        Array.from({ length: Math.min(atOnce, first.partitions - next) }, (_, i) => read(next + i))
      ))
    )
  const all = pages
    .flatMap(({ records }) => records)
    .toSorted((a, b) => b.appended_at - a.appended_at || b.position - a.position)
  return {
    records: all.slice(0, rowsOfPage),
    partitions: first.partitions,
    positions: pages.reduce((sum, { searched }) => sum + searched.to - searched.from, 0),
    cut: pages.filter(({ next, records, start }) => records.length < rowsOfPage && next > start),
    isDone: all.length <= rowsOfPage && pages.every(({ next, start }) => next <= start)
  }
}
const AllPartitions = ({ query, set, topic }) => {
  const { from, tenant, type } = query
  const [state, setState] = useState({})
  const pages = useRef(1)
  useEffect(() => {
    let isGone = false
    let timer
    const ask = async () => {
      try {
        if (!document.hidden) {
          const data = await readAll(topic.name, query)
          pages.current = data.partitions
          if (!isGone) setState({ data })
        }
      } catch (error) {
        if (!isGone) setState((old) => ({ ...old, error }))
      }
      if (!isGone && from === undefined) timer = setTimeout(ask, 5_000 * Math.max(1, pages.current / 12))
    }
    setState({})
    ask()
    return () => {
      isGone = true
      clearTimeout(timer)
    }
  }, [topic.name, from, tenant, type])
  return html`<section class="card">
    <${Loaded} of=${{ ...state, isLoading: true }}>
      ${({ cut, isDone, partitions, positions, records }) => {
        const oldest = records.at(-1)?.appended_at
        // what has the same time as the last one comes again, rather than not at all
        const before = oldest === undefined ? undefined : new Date(oldest + 1).toISOString()
        const next = before === undefined || before !== from ? before : new Date(oldest).toISOString()
        return html`<p role="status" class="quiet">
            ${counted(partitions, "partition")}, by the time at which records were
            stored${from ? html`, before <${Time} at=${from} />` : ""}.${cut.length > 0 && ` It looked at ${counted(positions, "position")}, and ended at its limit in ${counted(cut.length, "partition")}: `}
            ${cut.length > 0 && html`<a href=${linkTo("events", { ...query, topic: topic.name, partition: String(cut[0].partition), order: "desc", from: String(cut[0].next) })}>look further in partition ${cut[0].partition}</a>`}
          </p>
          ${
            records.length === 0
              ? cut.length > 0
                ? html`<${Empty} title="None here, so far"
                    ><p>What has been looked at only announces times, or has another type or tenant.</p><//
                  >`
                : html`<${Empty} title="No records here"
                    ><p>${type || tenant || from ? "Remove a filter, or send an event." : "Send an event."}</p>
                    <p class="row"><a href=${linkTo("send")}>Send an event</a></p><//
                  >`
              : html`<${Records} topic=${topic} query=${query} records=${records} />`
          }
          <div class="row">
            <button type="button" disabled=${from === undefined} onClick=${() => history.back()}>Back</button>
            <button type="button" disabled=${isDone || next === undefined} onClick=${() => set({ from: next })}>
              Earlier
            </button>
            <button type="button" disabled=${from === undefined} onClick=${() => set({ from: "" })}>Newest</button>
          </div>`
      }}
    <//>
  </section>`
}

/** A time of the form's field as the parameter, in the viewer's zone; empty if it is none. */
const timeOf = (text) => (text === "" || Number.isNaN(Date.parse(text)) ? "" : new Date(text).toISOString())

/** What the page shows, as the address has it: each change of a filter begins at the newest again. */
const Filters = ({ isAll, query, set, topic, topics }) => {
  const filter = (name) => (event) => set({ [name]: event.target.value.trim(), from: "", order: "" })
  const field = (name, label) =>
    html`<${Field} label=${label}><input value=${query[name] ?? ""} onChange=${filter(name)} /><//>`
  return html`<div class="row end">
    <${Field} label="Topic"
      ><select value=${topic.name} onChange=${(event) => go(linkTo("events", { topic: event.target.value }))}>
        ${topics.map(({ name }) => html`<option key=${name}>${name}</option>`)}
      </select><//
    >
    <${Field} label="Partition"
      ><input
        type="number"
        min="0"
        class="short"
        placeholder=${query.key === undefined ? "all" : "the key's"}
        value=${query.partition ?? ""}
        onChange=${filter("partition")}
    /><//>
    ${field("key", "Key")}
    ${
      topic.types &&
      html`<${Field} label="Type"
        ><select value=${query.type ?? ""} onChange=${filter("type")}>
          <option value="">all</option>
          ${topic.types.map((name) => html`<option key=${name}>${name}</option>`)}
        </select><//
      >`
    }
    ${field("tenant", "Tenant")}
    <${Field} label="Stored before"
      ><input
        type="datetime-local"
        step="1"
        onChange=${(event) => set({ from: timeOf(event.target.value), order: "" })}
    /><//>
    ${
      !isAll &&
      html`<${Field} label="Before position"
        ><input
          class="short"
          value=${query.order === "asc" || !/^\d+$/.test(query.from ?? "") ? "" : query.from}
          onChange=${(event) => set({ from: event.target.value.trim(), order: "desc" })}
      /><//>`
    }
  </div>`
}
const Page = ({ query, topics }) => {
  const topic = query.topic === undefined ? firstTopic(topics) : topics.find(({ name }) => name === query.topic)
  if (topic === undefined && query.topic !== undefined)
    return html`<${NoSuch}
      noun="topic"
      name=${query.topic}
      links=${topics.map(({ name }) => ({ name, href: linkTo("events", { topic: name }) }))}
    />`
  if (topic === undefined)
    return html`<${Empty} title="The application has no topics"
      ><p>A projection reads one, and an aggregate has one: declare it in the application.</p><//
    >`
  const { at: given, ...rest } = query
  // a position of a partition without an order names one record
  const isRecord =
    given === undefined && rest.order === undefined && /^\d+$/.test(rest.from ?? "") && rest.partition !== undefined
  const at = isRecord ? `${rest.partition}:${rest.from}` : given
  const own = isRecord ? { ...rest, from: undefined } : rest
  const set = (changes) => go(linkTo("events", { ...own, topic: topic.name, ...changes }))
  const isAll = query.partition === undefined && query.key === undefined
  const Shown = isAll ? AllPartitions : Partition
  const [partition, position] = at?.split(":") ?? []
  return html`<${Filters} query=${query} set=${set} topic=${topic} topics=${topics} isAll=${isAll} />
    <${Shown} key=${topic.name} topic=${topic} query=${own} set=${set} />
    ${position !== undefined && html`<${RecordDialog} key=${at} topic=${topic} partition=${partition} position=${position} onClose=${() => set({})} />`}`
}

export default ({ query }) => {
  const topics = useGet("/v1/topics")
  return html`<header class="head"><h1>Events</h1></header>
    <p class="lead">The records of a topic, the newest first.</p>
    <${Loaded} of=${topics}>${({ topics: all }) => html`<${Page} topics=${all} query=${query} />`}<//>`
}
