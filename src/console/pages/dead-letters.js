// Dead letters: by error with root causes first, one with its payload and trace, and what can be decided about them.
import { send, useGet, withQuery } from "../lib/api.js"
import { counted, number } from "../lib/format.js"
import { html } from "../lib/html.js"
import { linkTo } from "../lib/router.js"
import { Action, Command, Empty, Json, Loaded, Table, Tag, Time } from "../parts/common.js"

const base = "/v1/operations/dead-letters"
const resultText = ({ count, failed_again: again, processed, refused, retried }) =>
  retried === undefined
    ? `${counted(count ?? 0, "dead letter")} discarded.`
    : `${counted(retried, "dead letter")} sent again` +
      (processed === undefined ? "" : `: ${number(processed)} processed, ${number(again ?? 0)} failed again`) +
      (refused?.length > 0 ? `; ${number(refused.length)} refused again` : "")

/** The two decisions about the dead letters of a filter: `body` is that of the request. */
const Decisions = ({ body, command, onDone }) => {
  const act = (verb) => async () => resultText((await send("POST", `${base}/${verb}`, { body })).body)
  const plan = (verb) => async () => {
    const { body: found } = await send("POST", `${base}/${verb}?dryRun=true`, { body })
    return `It is about ${counted(found.count, "dead letter")} that ${found.count === 1 ? "is" : "are"} open.`
  }
  return html`<${Action}
      label="Retry"
      describe="The events are processed again, in the order of their keys. What fails again stays a dead letter."
      command=${`npx millrace dlq retry ${command}`}
      plan=${plan("retry")}
      act=${act("retry")}
      onDone=${onDone}
    />
    <${Action}
      label="Discard"
      danger
      describe="They are never processed, also not by a rebuild. This cannot be taken back."
      command=${`npx millrace dlq discard ${command}`}
      plan=${plan("discard")}
      act=${act("discard")}
      onDone=${onDone}
    />`
}

const filterOf = ({ error, kind, projection }) => ({ kind, error, ...(projection !== null && { projection }) })
const flagsOf = (filter) =>
  Object.entries(filter)
    .map(([name, value]) => `--${name} ${value}`)
    .join(" ")

const Groups = () => {
  const groups = useGet(`${base}/errors`, { every: 5_000 })
  return html`<${Loaded} of=${groups}>
    ${({ groups: found }) =>
      found.length === 0
        ? html`<${Empty} title="No open dead letters">
            <p>
              An event that fails, after the retries of its projection, is kept here with its error until somebody
              decides.
            </p>
            <${Command} text="npx millrace dlq list" />
          <//>`
        : found.map(
            (group, i) =>
              html`<section class="card" key=${`${group.failed_in} ${group.error} ${i}`}>
                <div class="row spread">
                  <h2>${group.error} <span class="quiet">in ${group.failed_in}</span></h2>
                  <span
                    >${group.waits && html`<${Tag}>waits behind others<//>`} ${counted(group.count, "dead letter")},
                    ${counted(group.keys, "key")}</span
                  >
                </div>
                <p>${group.sample.message}</p>
                <p class="quiet">
                  First <${Time} at=${group.first_failed_at} />, last <${Time} at=${group.last_failed_at} />${
                    group.waiting > 0 && html`; ${number(group.waiting)} others wait behind them`
                  }
                </p>
                <div class="row">
                  <a href=${linkTo("dead-letters", filterOf(group))}>Show them</a>
                  <${Decisions} body=${filterOf(group)} command=${flagsOf(filterOf(group))} onDone=${groups.reload} />
                </div>
              </section>`
          )}
  <//>`
}

const List = ({ query }) => {
  const page = useGet(withQuery(base, { ...query, limit: "50" }))
  const { after: _, ...filter } = query
  return html`<section class="card">
    <div class="row spread">
      <h2>${flagsOf(filter)}</h2>
      <a href=${linkTo("dead-letters")}>All errors</a>
    </div>
    <${Loaded} of=${page}>
      ${({ dead_letters: found, next }) =>
        html`${
          found.length === 0
            ? html`<${Empty} title="None is open" />`
            : html`<${Table}
                caption="Dead letters"
                rows=${found}
                keyOf=${({ id, kind }) => `${kind} ${id}`}
                columns=${[
                  { name: "id", cell: ({ id }) => html`<a href=${linkTo(["dead-letters", String(id)])}>${id}</a>` },
                  { name: "status" },
                  { name: "key" },
                  { name: "message" },
                  { name: "attempts", numeric: true },
                  { name: "failed_at", label: "failed", cell: ({ failed_at: at }) => html`<${Time} at=${at} />` }
                ]}
              />`
        }
        ${next && html`<a href=${linkTo("dead-letters", { ...query, after: next })}>More</a>`}`}
    <//>
  </section>`
}

const One = ({ id }) => {
  const found = useGet(`${base}/${encodeURIComponent(id)}`)
  return html`<${Loaded} of=${found}>
    ${({ dead_letter: nested, ...rest }) => {
      const { headers, message, value, ...fields } = nested ?? rest
      return html`<section class="card">
        <h2>${fields.error}</h2>
        <p>${message}</p>
        <dl class="pairs">
          ${Object.entries(fields).map(
            ([name, one]) =>
              html`<dt key=${name}>${name}</dt>
                <dd>
                  ${/_(at|time)$/.test(name) ? html`<${Time} at=${one} />` : typeof one === "object" && one !== null ? JSON.stringify(one) : String(one)}
                </dd>`
          )}
        </dl>
        <h3>Payload</h3>
        <${Json} value=${value} />
        ${
          headers &&
          html`<h3>Headers</h3>
            <${Json} value=${headers} />`
        }
        ${
          ["open", "parked", "retrying"].includes(fields.status) &&
          html`<div class="row">
            <${Decisions} body=${{ ids: [fields.id] }} command=${String(fields.id)} onDone=${found.reload} />
          </div>`
        }
      </section>`
    }}
  <//>`
}

export default ({ path: [id], query }) =>
  html`<header class="head">
      <h1>${id === undefined ? "Dead letters" : html`<a href=${linkTo("dead-letters")}>Dead letters</a> / ${id}`}</h1>
    </header>
    ${
      id === undefined &&
      html`<p class="lead">
        What could not be processed or delivered, by error. Those that others wait for come first: fix the cause, then
        retry.
      </p>`
    }
    ${id !== undefined ? html`<${One} key=${id} id=${id} />` : Object.keys(query).length > 0 ? html`<${List} query=${query} />` : html`<${Groups} />`}`
