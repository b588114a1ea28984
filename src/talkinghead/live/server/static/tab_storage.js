/** What this tab keeps: the access token, and the conversation while the page is reloaded. */

const TOKEN_KEY = "talkinghead.token";
const CONVERSATION_KEY = "talkinghead.conversation";

/** Move the token from the address (`#token=`) into the storage of the tab, and return it. */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    saveToken(token);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(TOKEN_KEY);
}

export function saveToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

/**
 * Keep a conversation for a reload. Call it only when the page goes away, so that a duplicate of
 * the tab does not take over its session.
 *
 * @param {{id: string, choices: object, messages: object[]}} conversation
 */
export function saveConversation(conversation) {
  sessionStorage.setItem(CONVERSATION_KEY, JSON.stringify(conversation));
}

/** @returns {?object} The conversation from before the reload, once. */
export function takeConversation() {
  const conversation = sessionStorage.getItem(CONVERSATION_KEY);
  sessionStorage.removeItem(CONVERSATION_KEY);
  return JSON.parse(conversation);
}
