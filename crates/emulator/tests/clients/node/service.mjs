// The emulator that run.py started: where it is, and how to sign in.

const ready = JSON.parse(process.env.FLOWGATE_READY);

export const url = ready.url;
export const organization = ready.organization;

/** A token by client credentials, as an application asks for it. */
export async function token(secret = ready.client_secret) {
  const form = new URLSearchParams({
    grant_type: "client_credentials",
    client_id: ready.client_id,
    client_secret: secret,
    scope: `${url}/.default`,
  });
  const answer = await (await fetch(ready.token_url, { method: "POST", body: form })).json();
  if (answer.error) throw new Error(answer.error_description);
  return answer.access_token;
}

/** A control request, which is no part of the service. */
export async function control(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  const answer = await fetch(`${url}/__emulator/${path}`, options);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

export const skip = (seconds) => control("time", { skip_s: seconds });
