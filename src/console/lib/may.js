// What the credential of this tab may do, as `GET /v1/credential` says.
import { useEffect, useState } from "./html.js"

let allowed
/** Notes what the credential allows: `{ name, scopes, tenant }`; undefined: it is not known. */
export const setAllowed = (next) => {
  if (JSON.stringify(next) === JSON.stringify(allowed)) return
  allowed = next
  globalThis.dispatchEvent(new Event("allowed"))
}
/** Whether a credential of the same tenant may see all that the one of this tab may. */
export const maySeeSame = ({ scopes, tenant }) =>
  allowed !== undefined && tenant === allowed.tenant && allowed.scopes.every((scope) => scopes.includes(scope))

const lackOf = (scope) => {
  if (scope === undefined || allowed === undefined || allowed.scopes.includes(scope)) return undefined
  const { name, scopes, tenant } = allowed
  const isOfAll = scope === "operate" && tenant !== null
  return {
    status: 403,
    code: "forbidden",
    scope,
    tenant: isOfAll ? null : tenant,
    message: isOfAll
      ? `${name} belongs to the tenant ${tenant}, and this is about all tenants`
      : `${name} has ${scopes.join(", ") || "no scope"}, and this needs the scope ${scope}`,
    advice: `use a credential with the scope ${scope}${isOfAll ? " and without a tenant" : ""}`
  }
}
/** A function that says why the credential may not do what needs a scope, as a problem; undefined if it may, or if that is not known. */
export const useLack = () => {
  const [, refresh] = useState(0)
  useEffect(() => {
    const update = () => refresh((n) => n + 1)
    globalThis.addEventListener("allowed", update)
    return () => globalThis.removeEventListener("allowed", update)
  }, [])
  return lackOf
}
