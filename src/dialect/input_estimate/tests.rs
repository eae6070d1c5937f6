use base64::engine::general_purpose::STANDARD as PADDED;
use gatekeeper_filters::kernel::{Vocabulary, json::Document};
use serde_json::json;

use super::*;

fn weighed(
    value: &serde_json::Value,
    weigh: impl Fn(&mut InputEstimate, &Value<'_>),
) -> InputEstimate {
    let document = Document::parse(value.to_string().into()).unwrap();
    let mut weight = InputEstimate::default();
    weigh(&mut weight, &document.root());
    weight
}

fn message(content: &serde_json::Value) -> InputEstimate {
    let message = json!({ "role": "user", "content": content });
    weighed(&message, |weight, value| weight.message(value, CHAT_ROLES))
}

fn tokens(weight: &InputEstimate) -> u64 {
    weight.input.text.tokens(Vocabulary::O200k)
}

const PNG: [u8; 24] = *b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x04\0\0\0\x03\0";

#[test]
fn text_weighs_wherever_it_stands() {
    let text = "The parcel left our warehouse on Tuesday. ".repeat(100);
    let plain = tokens(&message(&json!(text)));
    assert!(plain > 800, "{plain}");
    for part in [
        json!({ "type": "refusal", "text": "", "refusal": text }),
        json!({ "type": "text", "text": "", "refusal": text }),
        json!({ "type": "text", "text": "Hi", "x": { "y": [text] } }),
        json!({ "type": "text", "cache_control": { "type": text } }),
        json!({ "type": "image_url", "image_url": { "url": "https://e.com/a.png", "more": text } }),
        json!({ "type": "image_url", "image_url": { "url": "https://e.com/a.png" }, "alt": text }),
        json!({ "type": "image", "source": { "type": text, "data": "AAAA" } }),
        json!({ "type": "file", "file": { "file_data": "AAAA", "filename": text } }),
        json!({ "type": "input_audio", "input_audio": { "data": "AAAA", "format": text } }),
        json!({ "type": "tool_use", "id": "t", "name": "f", "input": { "a": text } }),
        json!({ "type": "tool_result", "tool_use_id": text, "content": "x" }),
        json!({ "type": "document", "title": text, "source": { "type": "text", "data": "x" } }),
        json!({ "type": "document", "title": text, "source": { "type": "base64", "data": "AA" } }),
        json!({ "type": "thinking", "thinking": text, "signature": "AAAA" }),
        json!({ "type": "text", "text": "", "signature": text }),
        json!({ "y".repeat(text.len()): 1, "type": "text", "text": text }),
    ] {
        let weight = message(&json!([part]));
        assert!(tokens(&weight) >= plain - 5, "{}", &part.to_string()[..60]);
        assert!(weight.input.bytes >= text.len() as u64);
    }
    for item in [
        json!({ "role": "user", "content": "x", "name": text }),
        json!({ "role": "tool", "tool_call_id": text, "content": "x" }),
        json!({ "role": "user", "content": "x", "status": text }),
        json!(text),
        json!([text]),
    ] {
        let weight = weighed(&item, |weight, value| weight.message(value, CHAT_ROLES));
        assert!(tokens(&weight) >= plain - 5, "{}", &item.to_string()[..40]);
    }
}

#[test]
fn what_surrounds_a_text_weighs_little() {
    let plain = tokens(&message(&json!("Where is my parcel?")));
    let part = json!([{ "type": "text", "text": "Where is my parcel?",
        "cache_control": { "type": "ephemeral", "ttl": "1h" } }]);
    assert_eq!(tokens(&message(&part)), plain);
    let call = json!({ "role": "assistant", "content": null, "tool_calls": [], "refusal": null });
    let weight = weighed(&call, |weight, value| weight.message(value, CHAT_ROLES));
    assert_eq!(tokens(&weight), estimate::MESSAGE_TOKENS);
}

#[test]
fn only_known_roles_are_taken() {
    for (role, roles, fits) in [
        (json!("developer"), CHAT_ROLES, true),
        (json!("user"), MESSAGES_ROLES, true),
        (json!("model"), GEMINI_ROLES, true),
        (json!(null), CHAT_ROLES, true),
        (json!("User"), CHAT_ROLES, false),
        (json!("tool"), ITEM_ROLES, false),
        (json!("x".repeat(200_000)), CHAT_ROLES, false),
        (json!(["user"]), CHAT_ROLES, false),
    ] {
        let message = json!({ "role": role, "content": "Hi" });
        let weight = weighed(&message, |weight, value| weight.message(value, roles));
        assert_eq!(weight.refused.is_none(), fits, "{}", roles.0);
        if let Some(refused) = weight.refused {
            assert_eq!(refused.param.as_deref(), Some(roles.0));
        }
    }
}

#[test]
fn images_are_measured_and_files_are_counted_by_their_bytes() {
    let png = PADDED.encode(PNG);
    let url = format!("data:image/png;base64,{png}");
    let (size, low) = (Some((1024, 768)), Detail::Low);
    for (part, image) in [
        (
            json!({ "type": "image_url", "image_url": { "url": url } }),
            Image { size, ..Image::default() },
        ),
        (json!({ "type": "image_url", "image_url": url }), Image { size, ..Image::default() }),
        (
            json!({ "type": "input_image", "image_url": url, "detail": "low" }),
            Image { size, detail: low },
        ),
        (
            json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": png } }),
            Image { size, ..Image::default() },
        ),
        (
            json!({ "type": "image_url", "image_url": { "url": "https://e.com/a" } }),
            Image::default(),
        ),
        (json!({ "type": "image_url", "image_url": { "url": "data:,AAAA" } }), Image::default()),
    ] {
        let weight = message(&json!([part]));
        assert_eq!(weight.input.images, [image], "{part}");
        assert_eq!(tokens(&weight), estimate::MESSAGE_TOKENS, "{part}");
        assert!(weight.media.is_empty());
    }
    let bytes = "A".repeat(4096);
    let (file, audio, remote) = (3072, 3072, 1);
    for (part, expected) in [
        (
            json!({ "type": "file", "file": { "file_data": format!("data:application/pdf;base64,{bytes}") } }),
            (file, 0, 0),
        ),
        (
            json!({ "type": "document", "source": { "type": "base64", "media_type": "application/pdf", "data": bytes } }),
            (file, 0, 0),
        ),
        (
            json!({ "type": "input_audio", "input_audio": { "format": "wav", "data": bytes } }),
            (0, audio, 0),
        ),
        (
            json!({ "type": "video_url", "video_url": { "url": "https://e.com/v.mp4" } }),
            (0, 0, remote),
        ),
        (
            json!({ "type": "document", "source": { "type": "url", "url": "https://e.com/a.pdf" } }),
            (0, 0, remote),
        ),
    ] {
        let InputEstimate { input, media, .. } = message(&json!([part]));
        assert_eq!((input.files, input.audio, input.remote), expected);
        assert_eq!(media.len(), 1);
    }
    let part = json!({ "parts": [
        { "inlineData": { "mimeType": "image/png", "data": png } },
        { "inlineData": { "mimeType": "audio/mp3", "data": bytes } },
        { "inlineData": { "mimeType": "application/pdf", "data": bytes } },
    ] });
    let InputEstimate { input, .. } = weighed(&part, |weight, value| weight.content(value));
    assert_eq!((input.images[0].size, input.audio, input.files), (size, audio, file));
}

proptest::proptest! {
    /// A text is cut off anywhere, is no base64, or both.
    #[test]
    fn any_text_can_be_looked_at_as_an_image(text in "\\PC{0,90}|[A-Za-z0-9+/=]{0,90}", cut in 0_usize..40) {
        size_of_base64(&text);
        let png = PADDED.encode(PNG);
        size_of_base64(&png[..cut.min(png.len())]);
    }
}
